//! The API as an OpenAPI 3.1 document, made from the contract's own types.
//!
//! The document is data: [`document`] is served at `/openapi.json`, and its copy in `docs/openapi.json` is what clients
//! are generated from. A test holds the two together.

mod parameters;
mod paths;

use std::cell::RefCell;

use operations_contract::{
    CancelView, ErrorBody, JobEvent, JobList, JobView, ModelList, ModelView, Operation, Submitted,
};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::views::{Health, Info, Ready};

/// The whole document.
pub fn document() -> Value {
    let schemas = Schemas::new();
    let paths = paths::all(&schemas);
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
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Wanted where the worker was given tokens.",
                },
            },
        },
    })
}

/// References to the contract's types; those that were asked for end up in the document.
struct Schemas(RefCell<SchemaGenerator>);

macro_rules! references {
    ($($name:ident: $type:ty),* $(,)?) => {
        $(fn $name(&self) -> Value {
            self.0.borrow_mut().subschema_for::<$type>().to_value()
        })*
    };
}

impl Schemas {
    fn new() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
        });
        Self(RefCell::new(settings.into_generator()))
    }

    references! {
        operation: Operation,
        submitted: Submitted,
        job: JobView,
        jobs: JobList,
        cancelled: CancelView,
        event: JobEvent,
        model: ModelView,
        models: ModelList,
        error: ErrorBody,
        info: Info,
        health: Health,
        ready: Ready,
    }

    fn into_definitions(self) -> Value {
        Value::Object(self.0.into_inner().take_definitions(true))
    }
}
