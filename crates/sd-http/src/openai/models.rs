//! `/v1/models` for OpenAI's clients: its fields beside ours.

use operations_contract::{ModelCapabilities, ModelList};
use serde_json::{Value, json};

/// `object` and `data` beside `models`. `created`: since when this worker has the model, in seconds since 1970.
pub(crate) fn model_list(list: &ModelList, created: u64) -> Value {
    let entry = |model: &ModelCapabilities| json!({"id": model.id, "object": "model", "created": created, "owned_by": "sd-worker"});
    json!({"models": list.models, "object": "list", "data": list.models.iter().map(entry).collect::<Vec<_>>()})
}

/// One model with all of our fields and OpenAI's.
pub(crate) fn model(model: &ModelCapabilities, created: u64) -> Value {
    // Capabilities are plain data: they always serialize.
    let mut told = serde_json::to_value(model).unwrap_or_default();
    told["object"] = "model".into();
    told["created"] = created.into();
    told["owned_by"] = "sd-worker".into();
    told
}
