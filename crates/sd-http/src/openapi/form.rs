//! `POST /v1/jobs` as a form: what [`multipart`](crate::multipart) takes.

use std::borrow::Cow;

use operations_contract::{Operation, OperationKind};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::{Schemas, fields};
use crate::multipart::PICTURES;

/// An operation as a form.
pub(super) struct JobForm;

impl JobForm {
    /// The form with what its parts are sent as.
    pub(super) fn media_type(schemas: &Schemas) -> Value {
        let mut encoding = pictures(&PICTURES);
        encoding.insert("request".into(), json!({"contentType": "application/json"}));
        json!({"schema": schemas.of::<Self>(), "encoding": encoding})
    }
}

/// That parts of these names are pictures.
pub(super) fn pictures(names: &[&str]) -> Map<String, Value> {
    let encoding = json!({"contentType": "image/png, image/jpeg, image/webp"});
    names.iter().map(|name| ((*name).to_owned(), encoding.clone())).collect()
}

impl JsonSchema for JobForm {
    fn schema_name() -> Cow<'static, str> {
        "JobForm".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut all = Map::new();
        for kind in OperationKind::ALL {
            all.extend(fields::of_operation(generator, *kind));
        }
        for field in all.values_mut() {
            // Some are another one with another operation.
            field.as_object_mut().and_then(|field| field.remove("default"));
        }
        let kinds: Vec<&str> = OperationKind::ALL.iter().map(|kind| kind.as_str()).collect();
        all.insert("operation".into(), json!({"type": "string", "enum": kinds}));
        for name in PICTURES {
            all.insert(name.into(), fields::file("A picture: PNG, JPEG or WebP."));
        }
        let operation = generator.subschema_for::<Operation>().to_value();
        let about = "The fields of an operation, each as a part, or all but the pictures in the part `request`. Which ones an \
            operation has, its own schema says. Unknown ones are refused, and so is what comes twice.";
        let mut schema = fields::form(generator, all, &[], about);
        let object = schema.ensure_object();
        if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
            // Without the pictures it need not be a whole operation.
            let request = json!({"type": "string", "contentMediaType": "application/json", "contentSchema": operation,
                                 "description": "The operation as JSON; pictures may be missing in it."});
            properties.insert("request".into(), request);
        }
        object.insert("anyOf".into(), json!([{"required": ["operation"]}, {"required": ["request"]}]));
        let of_controls = fields::file("The picture of an entry of `control`.");
        object.insert("patternProperties".into(), json!({"^control\\[[0-9]+\\]\\.image$": of_controls}));
        schema
    }
}
