//! The API as an OpenAPI 3.1 document, made from the contract's own types.
//!
//! The document is data: [`document`] is served at `/openapi.json`, and its copy in `docs/openapi.json` is what clients
//! are generated from. A test holds the two together.

mod a1111;
pub(crate) mod fields;
mod form;
#[cfg(test)]
mod guide;
mod openai;
mod parameters;
mod paths;

use std::cell::RefCell;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};

use crate::faces::Faces;

#[cfg(test)]
pub(crate) use a1111::PICTURE;

/// The whole document, with the interfaces of other programs that are answered.
pub fn document(faces: Faces) -> Value {
    let schemas = Schemas::new(faces);
    let mut paths = paths::all(&schemas);
    if faces.openai {
        paths.extend(openai::paths(&schemas));
    }
    if faces.a1111 {
        paths.extend(a1111::paths(&schemas));
    }
    let mut security = json!({
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "Wanted where the worker was given tokens.",
        },
    });
    if faces.a1111 {
        security["basic"] = json!({
            "type": "http",
            "scheme": "basic",
            "description": "At `/sdapi` only: the password is the token, the name does not matter.",
        });
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "sd-worker",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Image generation, image-to-image and inpainting as queued jobs.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": schemas.into_definitions(),
            "securitySchemes": security,
        },
    })
}

/// References to types; those that were asked for end up in the document.
struct Schemas {
    generator: RefCell<SchemaGenerator>,
    faces: Faces,
}

impl Schemas {
    fn new(faces: Faces) -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
        });
        Self { generator: RefCell::new(settings.into_generator()), faces }
    }

    fn of<T: JsonSchema>(&self) -> Value {
        self.generator.borrow_mut().subschema_for::<T>().to_value()
    }

    fn into_definitions(self) -> Value {
        Value::Object(self.generator.into_inner().take_definitions(true))
    }
}
