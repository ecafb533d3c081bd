//! The requests as JSON Schema: what the types alone do not say, which fields must be there, their bounds and defaults.
//!
//! Numbers stand in [`bounds`] and in the types' `Default`, and are read from there.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::bounds;
use crate::names::OperationKind;
use crate::operation::Operation;
use crate::request::{
    Extend, Hires, ImageGeneration, ImageInpaint, ImageTransform, Output, Preview, Refiner, Tiling,
};
use crate::upscale::ImageUpscale;

/// What a field allows beyond its type.
enum Bound {
    Whole(RangeInclusive<u64>),
    Number(RangeInclusive<f64>),
    /// Characters, at most.
    Text(usize),
    /// Characters, at least one.
    Name(usize),
    /// Entries.
    Entries(usize),
}

const COMMON: &[(&str, Bound)] = &[
    ("prompt", Bound::Text(bounds::MAX_PROMPT_CHARS)),
    ("negative_prompt", Bound::Text(bounds::MAX_PROMPT_CHARS)),
    ("prompt_2", Bound::Text(bounds::MAX_PROMPT_CHARS)),
    ("negative_prompt_2", Bound::Text(bounds::MAX_PROMPT_CHARS)),
    ("model", Bound::Name(bounds::MAX_NAME_CHARS)),
    ("hive_id", Bound::Name(bounds::MAX_NAME_CHARS)),
    ("worker_id", Bound::Name(bounds::MAX_NAME_CHARS)),
    ("width", Bound::Whole(bounds::SIDE)),
    ("height", Bound::Whole(bounds::SIDE)),
    ("steps", Bound::Whole(bounds::STEPS)),
    ("guidance_scale", Bound::Number(bounds::GUIDANCE_SCALE)),
    ("guidance_rescale", Bound::Number(bounds::GUIDANCE_RESCALE)),
    ("seed", Bound::Whole(0..=u64::MAX)),
    ("eta", Bound::Number(bounds::ETA)),
    ("num_images", Bound::Whole(bounds::NUM_IMAGES)),
    ("clip_skip", Bound::Whole(bounds::CLIP_SKIP)),
    ("loras", Bound::Entries(bounds::MAX_LORAS)),
    ("control", Bound::Entries(bounds::MAX_CONTROLS)),
    ("deadline_ms", Bound::Whole(bounds::DEADLINE_MS)),
];

const TRANSFORM: &[(&str, Bound)] = &[("strength", Bound::Number(bounds::STRENGTH))];

const INPAINT: &[(&str, Bound)] = &[
    ("strength", Bound::Number(bounds::STRENGTH)),
    ("mask_blur", Bound::Whole(bounds::MASK_BLUR)),
    ("padding_mask_crop", Bound::Whole(bounds::PADDING_MASK_CROP)),
];

/// `margin` is a quarter of `tile` at most, which a schema cannot say.
const UPSCALE: &[(&str, Bound)] = &[
    ("scale", Bound::Number(bounds::UPSCALE_SCALE)),
    ("tile", Bound::Whole(bounds::UPSCALE_TILE)),
    ("margin", Bound::Whole(bounds::UPSCALE_MARGIN)),
];

pub(crate) fn guidance_interval(schema: &mut Schema) {
    let span = || Bound::Number(bounds::GUIDANCE_SPAN);
    close(schema, &[], &[&[("start", span()), ("end", span())]], &json!({"start": 0.0, "end": 1.0}));
}

pub(crate) fn extend(schema: &mut Schema) {
    let side = || Bound::Whole(bounds::EXTEND);
    let bounds = &[
        ("left", side()),
        ("top", side()),
        ("right", side()),
        ("bottom", side()),
        ("overlap", Bound::Whole(bounds::EXTEND_OVERLAP)),
    ];
    close(schema, &[], &[bounds], &told(&Extend::default()));
}

pub(crate) fn lora(schema: &mut Schema) {
    let bounds =
        &[("name", Bound::Name(bounds::MAX_NAME_CHARS)), ("scale", Bound::Number(bounds::LORA_SCALE))];
    close(schema, &["name"], &[bounds], &json!({"scale": 1.0}));
}

pub(crate) fn control(schema: &mut Schema) {
    let bounds = &[
        ("kind", Bound::Name(bounds::MAX_NAME_CHARS)),
        ("strength", Bound::Number(bounds::CONTROL_STRENGTH)),
        ("start", Bound::Number(bounds::CONTROL_SPAN)),
        ("end", Bound::Number(bounds::CONTROL_SPAN)),
    ];
    let default = json!({"preprocess": "none", "strength": 1.0, "start": 0.0, "end": 1.0});
    close(schema, &["kind", "image"], &[bounds], &default);
}

pub(crate) fn tiling(schema: &mut Schema) {
    close(schema, &[], &[], &told(&Tiling::default()));
}

pub(crate) fn hires(schema: &mut Schema) {
    let bounds = &[
        ("scale", Bound::Number(bounds::HIRES_SCALE)),
        ("strength", Bound::Number(bounds::STRENGTH)),
        ("steps", Bound::Whole(bounds::STEPS)),
    ];
    close(schema, &[], &[bounds], &told(&Hires::default()));
}

pub(crate) fn refiner(schema: &mut Schema) {
    close(schema, &[], &[&[("start", Bound::Number(bounds::REFINER_START))]], &told(&Refiner::default()));
}

pub(crate) fn preview(schema: &mut Schema) {
    let bounds = &[
        ("every", Bound::Whole(bounds::PREVIEW_EVERY)),
        ("max_side", Bound::Whole(bounds::PREVIEW_MAX_SIDE)),
    ];
    close(schema, &[], &[bounds], &told(&Preview::default()));
}

pub(crate) fn output(schema: &mut Schema) {
    close(schema, &[], &[&[("quality", Bound::Whole(bounds::QUALITY))]], &told(&Output::default()));
}

impl JsonSchema for Operation {
    fn schema_name() -> Cow<'static, str> {
        "Operation".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let kinds = [
            variant::<ImageGeneration>(generator, OperationKind::ImageGeneration, &["prompt"], &[]),
            with_alias(variant::<ImageTransform>(
                generator,
                OperationKind::ImageTransform,
                &["prompt"],
                TRANSFORM,
            )),
            with_alias(variant::<ImageInpaint>(generator, OperationKind::ImageInpaint, &["prompt"], INPAINT)),
            variant::<ImageUpscale>(generator, OperationKind::ImageUpscale, &["image"], UPSCALE),
        ];
        json_schema!({
            "oneOf": kinds,
            "description": "What a job is to do. `null` counts as absent; unknown fields are refused.",
        })
    }
}

/// One kind of operation: its fields beside the key `operation`.
fn variant<T: JsonSchema + Serialize + Default>(
    generator: &mut SchemaGenerator,
    kind: OperationKind,
    required: &[&str],
    own: &[(&str, Bound)],
) -> Schema {
    let mut schema = T::json_schema(generator);
    let mut default = told(&T::default());
    if let Some(default) = default.as_object_mut() {
        // They stand in no request: they are required, or absent.
        default.retain(|name, _| !matches!(name.as_str(), "prompt" | "init_image" | "mask_image" | "image"));
    }
    close(&mut schema, required, &[COMMON, own], &default);
    let object = schema.ensure_object();
    object.insert("title".into(), kind.as_str().into());
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.insert("operation".into(), json!({"const": kind.as_str()}));
    }
    if let Some(Value::Array(required)) = object.get_mut("required") {
        required.insert(0, "operation".into());
    }
    schema
}

/// `init_image` goes by another name as well; one of the two must be there.
fn with_alias(mut schema: Schema) -> Schema {
    let object = schema.ensure_object();
    if let Some(Value::Object(properties)) = object.get_mut("properties")
        && let Some(image) = properties.get("init_image").cloned()
    {
        properties.insert("input_image".into(), image);
    }
    let one = |name: &str, other: &str| {
        json!({
            "required": [name],
            "properties": {name: {"type": "string"}, other: {"type": "null"}},
        })
    };
    object
        .insert("oneOf".into(), json!([one("init_image", "input_image"), one("input_image", "init_image")]));
    schema
}

/// Makes an object's schema say what the parser does: which fields must be there, that all others may be `null`, their
/// bounds and defaults, and that there are no further ones.
fn close(schema: &mut Schema, required: &[&str], bounds: &[&[(&str, Bound)]], default: &Value) {
    let object = schema.ensure_object();
    object.insert("required".into(), json!(required));
    object.insert("additionalProperties".into(), false.into());
    let Some(Value::Object(properties)) = object.get_mut("properties") else { return };
    for (name, bound) in bounds.iter().copied().flatten() {
        if let Some(Value::Object(property)) = properties.get_mut(*name) {
            restrict(property, bound);
        }
    }
    for (name, property) in properties.iter_mut() {
        if let (Some(value), Value::Object(property)) = (default.get(name), &mut *property) {
            property.insert("default".into(), value.clone());
        }
        if !required.contains(&name.as_str()) {
            allow_null(property);
        }
    }
}

fn restrict(property: &mut Map<String, Value>, bound: &Bound) {
    let limits = match bound {
        Bound::Whole(range) => json!({"minimum": range.start(), "maximum": range.end()}),
        Bound::Number(range) => json!({"minimum": range.start(), "maximum": range.end()}),
        Bound::Text(most) => json!({"maxLength": most}),
        Bound::Name(most) => json!({"minLength": 1, "maxLength": most}),
        Bound::Entries(most) => json!({"maxItems": most}),
    };
    if let Value::Object(limits) = limits {
        property.extend(limits);
    }
    // Rust's own widths mean nothing beside the bounds.
    property.remove("format");
}

fn allow_null(property: &mut Value) {
    let already = property.get("anyOf").is_some();
    match property.get_mut("type") {
        Some(Value::String(name)) => {
            let types = json!([name, "null"]);
            property["type"] = types;
        }
        Some(_) => {}
        None if already => {}
        None => {
            // A reference: description and default stay beside the choice.
            let mut beside = Map::new();
            let Value::Object(object) = property else { return };
            for key in ["description", "default"] {
                if let Some(value) = object.remove(key) {
                    beside.insert(key.into(), value);
                }
            }
            beside.insert("anyOf".into(), json!([Value::Object(std::mem::take(object)), {"type": "null"}]));
            *property = Value::Object(beside);
        }
    }
}

fn told(value: &impl Serialize) -> Value {
    // The requests are plain data: they always serialize.
    serde_json::to_value(value).unwrap_or_default()
}
