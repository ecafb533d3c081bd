//! `/v1/models` for OpenAI's clients: its fields beside ours.

use serde::Serialize;
use serde_json::{Value, json};

/// `object` and `data` beside `models`. `created`: since when this worker has the models, in seconds since 1970.
pub(crate) fn model_list(list: &impl Serialize, created: u64) -> Value {
    // What is told of models is plain data: it always serializes.
    let mut told = serde_json::to_value(list).unwrap_or_default();
    let models = told["models"].as_array().map(Vec::as_slice).unwrap_or_default();
    let entry = |model: &Value| json!({"id": model["id"], "object": "model", "created": created, "owned_by": "sd-worker"});
    let data: Vec<Value> = models.iter().map(entry).collect();
    told["object"] = "list".into();
    told["data"] = data.into();
    told
}

/// One model with all of our fields and OpenAI's.
pub(crate) fn model(model: &impl Serialize, created: u64) -> Value {
    let mut told = serde_json::to_value(model).unwrap_or_default();
    told["object"] = "model".into();
    told["created"] = created.into();
    told["owned_by"] = "sd-worker".into();
    told
}
