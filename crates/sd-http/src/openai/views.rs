//! OpenAI's answers, as its clients' types have them (`openai.types`), with our fields beside.

use operations_contract::{ErrorDetail, ImageFormat, JobId, ModelList, ModelView};
use schemars::JsonSchema;
use serde::Serialize;

/// `ImagesResponse`
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "OpenAiImages")]
pub(crate) struct Images {
    /// Seconds since 1970.
    pub(crate) created: u64,
    /// `opaque`
    pub(crate) background: &'static str,
    /// The pictures.
    pub(crate) data: Vec<Image>,
    /// The job behind them.
    pub(crate) job_id: JobId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) output_format: Option<ImageFormat>,
    /// `WIDTHxHEIGHT`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<String>,
    /// The hint, where the client's type knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quality: Option<String>,
    /// `safety_identifier` of the request, or `user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) safety_identifier: Option<String>,
}

/// One picture: the file, or where it is.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "OpenAiImage")]
pub(crate) struct Image {
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// The file as base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) b64_json: Option<String>,
    /// Its own seed.
    pub(crate) seed: u64,
}

/// `ImageGenPartialImageEvent`, `ImageGenCompletedEvent`, `ImageEditPartialImageEvent`, `ImageEditCompletedEvent`
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "OpenAiImageEvent")]
pub(crate) struct ImageEvent {
    /// `image_generation.partial_image`, `image_generation.completed`, `image_edit.partial_image`,
    /// `image_edit.completed`.
    pub(crate) r#type: String,
    /// The file as base64.
    pub(crate) b64_json: String,
    /// Seconds since 1970.
    pub(crate) created_at: u64,
    /// `WIDTHxHEIGHT`
    pub(crate) size: Option<String>,
    /// The hint.
    pub(crate) quality: String,
    /// `opaque`
    pub(crate) background: &'static str,
    pub(crate) output_format: ImageFormat,
    /// Of a partial picture: counts from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partial_image_index: Option<u64>,
    /// Of a finished picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<u64>,
    /// Of a finished picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Usage>,
    /// `safety_identifier` of the request, or `user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) safety_identifier: Option<String>,
}

/// Nothing is counted here: all of it is 0. The client's type wants the fields.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(rename = "OpenAiUsage")]
pub(crate) struct Usage {
    input_tokens: u64,
    output_tokens: u64,
    total_tokens: u64,
    input_tokens_details: UsageDetails,
}

/// Of what the tokens of a request are.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(rename = "OpenAiUsageDetails")]
pub(crate) struct UsageDetails {
    image_tokens: u64,
    text_tokens: u64,
}

/// `SyncPage[Model]`: `object` and `data` beside our `models`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "OpenAiModelList")]
pub(crate) struct Models {
    #[serde(flatten)]
    pub(crate) ours: ModelList,
    /// `list`
    pub(crate) object: &'static str,
    /// The models as OpenAI's clients know them.
    pub(crate) data: Vec<ModelEntry>,
}

/// `Model`
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "OpenAiModelEntry")]
pub(crate) struct ModelEntry {
    /// Its name in requests.
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) rest: ModelRest,
}

/// `Model` with all of our fields.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "OpenAiModel")]
pub(crate) struct Model {
    #[serde(flatten)]
    pub(crate) ours: ModelView,
    #[serde(flatten)]
    pub(crate) rest: ModelRest,
}

/// The fields of `Model` beside its name.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ModelRest {
    /// `model`
    object: &'static str,
    /// Since when this worker has it, in seconds since 1970.
    created: u64,
    /// `sd-worker`
    owned_by: &'static str,
}

impl ModelRest {
    pub(crate) fn since(created: u64) -> Self {
        Self { object: "model", created, owned_by: "sd-worker" }
    }
}

/// An error in OpenAI's form, which ours is a part of.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "OpenAiErrorBody")]
pub(crate) struct ErrorBody {
    pub(crate) error: Error,
}

/// `type` and `param` beside `code`, `message` and `fields`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "OpenAiError")]
pub(crate) struct Error {
    #[serde(flatten)]
    pub(crate) ours: ErrorDetail,
    /// `invalid_request_error`, `rate_limit_error` or `server_error`.
    pub(crate) r#type: &'static str,
    /// The first broken field.
    pub(crate) param: Option<String>,
}

/// An error within a stream.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "OpenAiErrorEvent")]
pub(crate) struct ErrorEvent {
    /// `error`
    pub(crate) r#type: &'static str,
    pub(crate) error: Error,
}
