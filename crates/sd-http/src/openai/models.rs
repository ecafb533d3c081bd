//! `/v1/models` for OpenAI's clients: its fields beside ours.

use operations_contract::{ModelList, ModelView};

use super::views::{Model, ModelEntry, ModelRest, Models};

/// `object` and `data` beside `models`. `created`: since when this worker has the models, in seconds since 1970.
pub(crate) fn model_list(ours: ModelList, created: u64) -> Models {
    let entry =
        |model: &ModelView| ModelEntry { id: model.capabilities.id.clone(), rest: ModelRest::since(created) };
    let data = ours.models.iter().map(entry).collect();
    Models { ours, object: "list", data }
}

/// One model with all of our fields and OpenAI's.
pub(crate) fn model(ours: ModelView, created: u64) -> Model {
    Model { ours, rest: ModelRest::since(created) }
}
