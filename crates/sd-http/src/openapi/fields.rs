//! Requests as schemas of their fields: what the interfaces of other programs and forms are put together from.

use operations_contract::{Operation, OperationKind};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// The schemas of an object's fields.
pub(crate) type Fields = Map<String, Value>;

/// The fields of an operation beside `operation`.
pub(crate) fn of_operation(generator: &mut SchemaGenerator, kind: OperationKind) -> Fields {
    let all = Operation::json_schema(generator).to_value();
    let kinds = all["oneOf"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = kinds.iter().find(|schema| schema["title"] == kind.as_str());
    let mut fields = found.and_then(|schema| schema["properties"].as_object()).cloned().unwrap_or_default();
    fields.remove("operation");
    fields
}

/// An object of these fields and no others.
pub(crate) fn object(fields: Fields, required: &[&str], about: &str) -> Schema {
    let mut schema = Schema::default();
    let object = schema.ensure_object();
    object.insert("type".into(), "object".into());
    object.insert("description".into(), about.into());
    object.insert("properties".into(), fields.into());
    object.insert("required".into(), json!(required));
    object.insert("additionalProperties".into(), false.into());
    schema
}

/// A form of these fields and no others, as its parts are written.
pub(crate) fn form(generator: &SchemaGenerator, fields: Fields, required: &[&str], about: &str) -> Schema {
    let is_text = |reference: &str| {
        let name = reference.rsplit('/').next().unwrap_or_default();
        generator.definitions().get(name).is_some_and(|definition| definition["type"] == "string")
    };
    object(fields.into_iter().map(|(name, field)| (name, part(field, is_text))).collect(), required, about)
}

/// A part with the bytes of a file.
pub(crate) fn file(about: &str) -> Value {
    json!({"type": "string", "contentMediaType": "application/octet-stream", "description": about})
}

/// A field as a part of a form: numbers, texts, `true` and `false` as they are written, lists and objects as JSON. There is
/// no `null`: a field that says nothing is left out.
fn part(mut field: Value, is_text: impl Fn(&str) -> bool) -> Value {
    if let Some(Value::Array(types)) = field.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = &types[..] {
            field["type"] = only.clone();
        }
    }
    if let Some(Value::Array(words)) = field.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
    if let Some(Value::Array(choices)) = field.get_mut("anyOf") {
        choices.retain(|choice| choice["type"] != "null");
    }
    let is_text = field.pointer("/anyOf/0/$ref").and_then(Value::as_str).is_some_and(is_text);
    if field.get("anyOf").is_some() && !is_text || matches!(field["type"].as_str(), Some("array" | "object"))
    {
        let mut json = json!({"type": "string", "contentMediaType": "application/json"});
        if let Some(about) = field.get("description") {
            json["description"] = about.clone();
        }
        json["contentSchema"] = field;
        return json;
    }
    field
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Whether one of the faults is about this field.
    pub(crate) fn says(faults: &[String], name: &str) -> bool {
        faults.iter().any(|fault| {
            fault.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// What a field may be sent as by somebody who has not read anything.
    fn values() -> Vec<Value> {
        vec![
            Value::Null,
            true.into(),
            false.into(),
            (-2).into(),
            (-1).into(),
            0.into(),
            1.into(),
            2.into(),
            3.into(),
            20.into(),
            513.into(),
            5000.into(),
            u64::MAX.into(),
            0.5.into(),
            (-0.5).into(),
            1_000_000_000.into(),
            "".into(),
            "None".into(),
            "auto".into(),
            "64x64".into(),
            "+64x+64".into(),
            "png".into(),
            "aGVsbG8=".into(),
            json!([]),
            json!(["aGVsbG8="]),
            json!([1]),
            json!(["aGVsbG8=", "aGVsbG8="]),
            json!({}),
            json!({"x": 1}),
        ]
    }

    /// Holds every field of a schema, with every value, to the parser. Gives how often.
    pub(crate) fn agrees(schema: &Value, takes: impl Fn(&str, &Value) -> bool) -> usize {
        let mut checked = 0;
        let mut wrong = Vec::new();
        for (name, field) in schema["properties"].as_object().unwrap() {
            let mut alone = field.clone();
            if let Some(definitions) = schema.get("$defs") {
                alone["$defs"] = definitions.clone();
            }
            let mut compiler = boon::Compiler::new();
            compiler.add_resource("field.json", alone).unwrap();
            let mut validator = boon::Schemas::new();
            let field_schema = compiler.compile("field.json", &mut validator).unwrap();
            let written = field["enum"].as_array().into_iter().flatten().cloned();
            let bounds = ["minimum", "maximum", "default"].iter().filter_map(|key| field.get(*key).cloned());
            for value in values().into_iter().chain(written).chain(bounds) {
                let (allowed, taken) =
                    (validator.validate(&value, field_schema).is_ok(), takes(name, &value));
                if allowed != taken {
                    wrong.push(format!("{name} = {value}: the schema says {allowed}, the parser {taken}"));
                }
                checked += 1;
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        checked
    }

    #[test]
    fn parts_of_a_form_are_written_as_text() {
        let about = "x";
        for (field, as_part) in [
            (json!({"type": ["integer", "null"], "minimum": 1}), json!({"type": "integer", "minimum": 1})),
            (json!({"type": "string"}), json!({"type": "string"})),
            (json!({"enum": ["a", null]}), json!({"enum": ["a"]})),
            (
                json!({"anyOf": [{"$ref": "#/components/schemas/Sampler"}, {"type": "null"}]}),
                json!({"anyOf": [{"$ref": "#/components/schemas/Sampler"}]}),
            ),
            (
                json!({"anyOf": [{"$ref": "#/components/schemas/Output"}, {"type": "null"}]}),
                json!({"type": "string", "contentMediaType": "application/json",
                       "contentSchema": {"anyOf": [{"$ref": "#/components/schemas/Output"}]}}),
            ),
            (
                json!({"type": ["array", "null"], "items": {}, "description": about}),
                json!({"type": "string", "contentMediaType": "application/json", "description": about,
                       "contentSchema": {"type": "array", "items": {}, "description": about}}),
            ),
        ] {
            assert_eq!(part(field, |reference| reference.ends_with("/Sampler")), as_part);
        }
    }
}
