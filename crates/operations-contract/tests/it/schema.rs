//! The schema says what the parser does.

use std::collections::BTreeSet;

use operations_contract::{Operation, ParsedOperation};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// The schema of all operations, with its definitions.
fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    generator.into_root_schema_for::<Operation>().to_value()
}

fn kinds(schema: &Value) -> Vec<&Map<String, Value>> {
    schema["oneOf"].as_array().unwrap().iter().map(|kind| kind.as_object().unwrap()).collect()
}

fn kind_name(kind: &Map<String, Value>) -> &str {
    kind["properties"]["operation"]["const"].as_str().unwrap()
}

/// A valid request of this kind.
fn minimal(kind: &str) -> Value {
    let image = "aGVsbG8=";
    match kind {
        "image_generation" => json!({"operation": kind, "prompt": "a"}),
        "image_upscale" => json!({"operation": kind, "image": image}),
        "image_transform" => json!({"operation": kind, "prompt": "a", "init_image": image}),
        _ => json!({"operation": kind, "prompt": "a", "init_image": image, "mask_image": image}),
    }
}

fn faults_of(request: &Value) -> Vec<String> {
    let ParsedOperation { faults, .. } = Operation::parse(request);
    faults.into_iter().map(|fault| fault.field).collect()
}

fn is_refused(request: &Value, field: &str) -> bool {
    faults_of(request).iter().any(|fault| fault == field || fault.starts_with(&format!("{field}.")))
}

#[test]
fn every_kind_names_exactly_the_fields_that_the_parser_knows() {
    let schema = schema();
    for kind in kinds(&schema) {
        let name = kind_name(kind);
        let mut request = minimal(name);
        assert_eq!(faults_of(&request), Vec::<String>::new(), "{name}");
        request["surprise"] = json!(1);
        let ParsedOperation { faults, .. } = Operation::parse(&request);
        let told = &faults.iter().find(|fault| fault.field == "surprise").unwrap().message;
        let (_, known) = told.split_once("known: ").expect(told);
        let known: BTreeSet<&str> = known.split(", ").collect();
        let documented: BTreeSet<&str> =
            kind["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(known, documented, "{name}");
        assert_eq!(kind["additionalProperties"], json!(false));
    }
}

#[test]
fn bounds_of_the_schema_are_those_of_the_parser() {
    let schema = schema();
    let mut checked = 0;
    for kind in kinds(&schema) {
        let mut base = minimal(kind_name(kind));
        if kind_name(kind) == "image_upscale" {
            // The largest margin wants a large tile.
            base["tile"] = kind["properties"]["tile"]["maximum"].clone();
            base["margin"] = json!(0);
        }
        for (field, property) in kind["properties"].as_object().unwrap() {
            let (Some(low), Some(high)) = (property.get("minimum"), property.get("maximum")) else {
                continue;
            };
            for inside in [low, high] {
                let mut request = base.clone();
                request[field] = inside.clone();
                assert!(!is_refused(&request, field), "{field} = {inside}");
            }
            let whole = high.is_u64();
            let below = if whole {
                json!(low.as_u64().unwrap() as i64 - 1)
            } else {
                json!(low.as_f64().unwrap() - 0.001)
            };
            let above = match high.as_u64() {
                Some(u64::MAX) => json!(1e20),
                Some(high) if whole => json!(high + 1),
                _ => json!(high.as_f64().unwrap() + 0.001),
            };
            for outside in [below, above] {
                let mut request = base.clone();
                request[field] = outside.clone();
                assert!(is_refused(&request, field), "{field} = {outside}");
            }
            checked += 1;
        }
    }
    assert!(checked > 25, "only {checked} bounds were found");
}

#[test]
fn lengths_of_the_schema_are_those_of_the_parser() {
    let schema = schema();
    for kind in kinds(&schema) {
        let base = minimal(kind_name(kind));
        for (field, property) in kind["properties"].as_object().unwrap() {
            if let Some(most) = property.get("maxLength").and_then(Value::as_u64) {
                for (length, refused) in [(most, false), (most + 1, true)] {
                    let mut request = base.clone();
                    request[field] = "a".repeat(length as usize).into();
                    assert_eq!(is_refused(&request, field), refused, "{field} of {length} characters");
                }
            }
        }
    }
}

#[test]
fn what_is_not_required_may_be_null_and_what_is_may_not() {
    let schema = schema();
    for kind in kinds(&schema) {
        let name = kind_name(kind);
        let required: Vec<&str> =
            kind["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        for field in kind["properties"].as_object().unwrap().keys() {
            // One of these two or three must be there, which the schema says elsewhere or cannot say.
            if matches!(field.as_str(), "init_image" | "input_image" | "mask_image") {
                continue;
            }
            let mut request = minimal(name);
            request[field] = Value::Null;
            assert_eq!(is_refused(&request, field), required.contains(&field.as_str()), "{name}: {field}");
        }
    }
}

#[test]
fn nested_objects_have_the_bounds_of_the_parser() {
    let schema = schema();
    let places = [
        ("GuidanceInterval", "guidance_interval", false),
        ("Hires", "hires", false),
        ("Refiner", "refiner", false),
        ("Preview", "preview", false),
        ("Output", "output", false),
        ("Lora", "loras", true),
        ("Control", "control", true),
    ];
    for (definition, field, listed) in places {
        let object = &schema["$defs"][definition];
        let required = object["required"].as_array().unwrap();
        let mut whole = json!({});
        for name in required {
            whole[name.as_str().unwrap()] = json!("aGVsbG8=");
        }
        for (name, property) in object["properties"].as_object().unwrap() {
            let (Some(low), Some(high)) = (property.get("minimum"), property.get("maximum")) else {
                continue;
            };
            let above =
                high.as_u64().map_or_else(|| json!(high.as_f64().unwrap() + 0.001), |high| json!(high + 1));
            for (value, refused) in [(low.clone(), false), (high.clone(), false), (above, true)] {
                let mut entry = whole.clone();
                entry[name] = value.clone();
                // A span from its end to its end, or from its start to its start, is none.
                if matches!(name.as_str(), "start" | "end") && field != "refiner" && !refused {
                    continue;
                }
                let mut request = minimal("image_generation");
                request[field] = if listed { json!([entry]) } else { entry };
                let path = if listed { format!("{field}[0].{name}") } else { format!("{field}.{name}") };
                assert_eq!(is_refused(&request, &path), refused, "{path} = {value}");
            }
        }
        let mut request = minimal("image_generation");
        whole["surprise"] = json!(1);
        request[field] = if listed { json!([whole]) } else { whole };
        assert!(faults_of(&request).iter().any(|fault| fault.ends_with("surprise")), "{field}");
        assert_eq!(object["additionalProperties"], json!(false));
    }
}
