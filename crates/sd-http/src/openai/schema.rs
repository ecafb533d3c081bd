//! The requests to OpenAI's images as JSON Schema. A test holds it to what [`request`](super::request) reads.

use std::borrow::Cow;

use operations_contract::OperationKind;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::request::{BACKGROUNDS, COMPRESSION, FORMATS, HINTS, PARTIAL_IMAGES, QUALITIES, RESPONSE_FORMATS};
use crate::openapi::fields::{self, Fields};

/// The body of `POST /v1/images/generations`.
pub(crate) struct Generation;

/// The form of `POST /v1/images/edits`.
pub(crate) struct Edit;

/// The form of `POST /v1/images/variations`.
pub(crate) struct Variation;

impl JsonSchema for Generation {
    fn schema_name() -> Cow<'static, str> {
        "OpenAiGeneration".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut all = fields::of_operation(generator, OperationKind::ImageGeneration);
        all.extend(theirs(&all));
        fields::object(all, &["prompt"], ABOUT)
    }
}

impl JsonSchema for Edit {
    fn schema_name() -> Cow<'static, str> {
        "OpenAiEdit".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut all = of_pictures(generator);
        all.insert("mask".into(), fields::file("What is fully transparent in it is repainted."));
        fields::form(generator, all, &["image", "prompt"], ABOUT)
    }
}

impl JsonSchema for Variation {
    fn schema_name() -> Cow<'static, str> {
        "OpenAiVariation".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let all = of_pictures(generator);
        fields::form(generator, all, &["image"], ABOUT)
    }
}

const ABOUT: &str = "OpenAI's fields, and those of the operation that they become. What both can say is said once. \
    Unknown fields are refused.";

/// The fields of what begins with a picture, which comes as a file.
fn of_pictures(generator: &mut SchemaGenerator) -> Fields {
    let mut all = fields::of_operation(generator, OperationKind::ImageInpaint);
    all.extend(fields::of_operation(generator, OperationKind::ImageTransform));
    for ours in ["init_image", "input_image", "mask_image"] {
        all.remove(ours);
    }
    all.extend(theirs(&all));
    let file = fields::file("The picture: PNG, JPEG or WebP.");
    all.extend([("image".to_owned(), file)]);
    all
}

/// The fields that OpenAI defines.
fn theirs(ours: &Fields) -> Fields {
    let whole = |range: std::ops::RangeInclusive<u64>| json!({"type": ["integer", "null"], "minimum": range.start(), "maximum": range.end()});
    let text = |about: &str| json!({"type": ["string", "null"], "description": about});
    let mut theirs = Map::new();
    let mut put = |name: &str, schema: Value| drop(theirs.insert(name.to_owned(), schema));
    let mut prompt = ours.get("prompt").cloned().unwrap_or_default();
    prompt["minLength"] = 1.into();
    prompt["description"] = "What to draw.".into();
    put("prompt", prompt);
    let mut count = ours.get("num_images").cloned().unwrap_or_default();
    count["description"] = "How many pictures: `num_images`.".into();
    put("n", count);
    put(
        "size",
        json!({"type": ["string", "null"], "pattern": "^(auto|[0-9]+x[0-9]+)$",
               "description": "`WIDTHxHEIGHT`, or `auto`: the model's own, or that of the picture."}),
    );
    put("output_format", word(&FORMATS, "`output.format`"));
    let mut compression = whole(COMPRESSION);
    compression["description"] = "The quality of JPEG.".into();
    put("output_compression", compression);
    put("response_format", word(&RESPONSE_FORMATS, "The picture, or where it is."));
    put("background", word(&BACKGROUNDS, "Pictures are opaque."));
    put("quality", word(&QUALITIES, "A hint, which changes nothing."));
    for (name, words) in HINTS {
        put(name, word(words, "A hint, which changes nothing."));
    }
    put("stream", json!({"type": ["boolean", "null"], "description": "Events instead of one answer."}));
    let mut partial = whole(PARTIAL_IMAGES);
    partial["description"] = "Pictures on the way, at most; with `stream`.".into();
    put("partial_images", partial);
    put("user", text("Echoed as `safety_identifier`."));
    put("safety_identifier", text("Echoed."));
    theirs
}

fn word(words: &[&str], about: &str) -> Value {
    let words: Vec<Value> = words.iter().map(|word| Value::from(*word)).chain([Value::Null]).collect();
    json!({"enum": words, "description": about})
}

#[cfg(test)]
mod tests {
    use operations_contract::FieldError;
    use schemars::generate::SchemaSettings;

    use super::super::Call;
    use super::super::form::Form;
    use super::super::request::{their_name, translate};
    use super::*;
    use crate::openapi::fields::tests::{agrees, says};

    /// The names of what the parser refuses in a request of this one field and those that must be there.
    fn faults(name: &str, value: &Value) -> Vec<String> {
        let mut fields = Map::new();
        fields.insert("prompt".into(), "a".into());
        if name == "output_compression" {
            fields.insert("output_format".into(), "jpeg".into());
        }
        if name == "guess_mode" {
            fields.insert("control".into(), json!([{"kind": "edges", "image": "aGVsbG8="}]));
        }
        fields.insert(name.to_owned(), value.clone());
        let form = Form { fields, ..Form::default() };
        let (parsed, _) = translate(Call::Generations, form, None);
        // By both names, where there are two.
        let names = |fault: FieldError| their_name(&fault.field).into_iter().chain([fault.field]);
        parsed.faults.into_iter().flat_map(names).collect()
    }

    #[test]
    fn the_schema_says_what_the_parser_does() {
        let generator = SchemaSettings::draft2020_12().into_generator();
        let schema = generator.into_root_schema_for::<Generation>().to_value();
        let checked = agrees(&schema, |name, value| !says(&faults(name, value), name));
        assert!(checked > 300, "{checked}");
        assert_eq!(faults("surprise", &1.into()), ["surprise"]);
        assert_eq!(schema["additionalProperties"], false);
    }
}
