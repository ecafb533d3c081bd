//! The web UI's answers.

use std::collections::BTreeMap;

use operations_contract::{ErrorCode, ErrorDetail, FieldError, JobId};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

/// `txt2img`, `img2img`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WebUiPictures")]
pub(crate) struct Pictures {
    /// The files as base64.
    pub(crate) images: Vec<String>,
    /// The request's fields, each with the value that counts.
    pub(crate) parameters: Map<String, Value>,
    /// How they were made: JSON within a text, as the web UI has it and its clients read it.
    pub(crate) info: String,
}

/// `extra-single-image`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WebUiEnlarged")]
pub(crate) struct Enlarged {
    /// Empty.
    pub(crate) html_info: &'static str,
    /// The file as base64.
    pub(crate) image: Option<String>,
    /// The job behind it.
    pub(crate) job_id: JobId,
    /// Fields that say something and change nothing.
    pub(crate) ignored: Vec<String>,
}

/// `progress`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WebUiProgress")]
pub(crate) struct Progress {
    /// 0 to 1.
    pub(crate) progress: f64,
    /// Seconds.
    pub(crate) eta_relative: f64,
    /// Where it stands.
    pub(crate) state: ProgressState,
    /// The newest preview as base64.
    pub(crate) current_image: Option<String>,
    /// For people.
    pub(crate) textinfo: Option<&'static str>,
}

/// Where the caller's job stands.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WebUiProgressState")]
pub(crate) struct ProgressState {
    pub(crate) skipped: bool,
    pub(crate) interrupted: bool,
    pub(crate) stopping_generation: bool,
    /// Its name; empty: there is none.
    pub(crate) job: String,
    pub(crate) job_count: u32,
    /// `20261121170000`, UTC.
    pub(crate) job_timestamp: String,
    pub(crate) job_no: u32,
    pub(crate) sampling_step: u32,
    pub(crate) sampling_steps: u32,
}

/// `png-info`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WebUiPngInfo")]
pub(crate) struct PngInfo {
    /// The text that stands in the file.
    pub(crate) info: String,
    /// Further texts.
    pub(crate) items: Map<String, Value>,
    /// The text taken apart.
    pub(crate) parameters: Map<String, Value>,
}

/// `GET options`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WebUiOptions")]
#[allow(non_snake_case, reason = "the web UI's names")]
pub(crate) struct Options {
    pub(crate) sd_model_checkpoint: Option<String>,
    pub(crate) sd_checkpoint_hash: &'static str,
    pub(crate) sd_vae: &'static str,
    pub(crate) CLIP_stop_at_last_layers: u64,
    pub(crate) samples_format: &'static str,
    pub(crate) jpeg_quality: u64,
    /// -1: never.
    pub(crate) show_progress_every_n_steps: i64,
    pub(crate) live_previews_enable: bool,
    pub(crate) randn_source: &'static str,
    pub(crate) eta_ddim: f64,
    pub(crate) eta_ancestral: f64,
    pub(crate) eta_noise_seed_delta: u64,
}

/// An entry of `samplers`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WebUiSampler")]
pub(crate) struct Sampler {
    pub(crate) name: &'static str,
    pub(crate) aliases: &'static [&'static str],
    pub(crate) options: BTreeMap<String, String>,
}

/// An entry of `schedulers`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WebUiScheduler")]
pub(crate) struct Scheduler {
    pub(crate) name: &'static str,
    pub(crate) label: &'static str,
    pub(crate) aliases: Option<&'static [&'static str]>,
    pub(crate) default_rho: f64,
    pub(crate) need_inner_model: bool,
}

/// An entry of `sd-models`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WebUiModel")]
pub(crate) struct Model {
    pub(crate) title: String,
    pub(crate) model_name: String,
    pub(crate) hash: Option<String>,
    pub(crate) sha256: Option<String>,
    pub(crate) filename: String,
    pub(crate) config: Option<String>,
}

/// An entry of `loras`. Where the files are is nobody's business.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WebUiLora")]
pub(crate) struct Lora {
    pub(crate) name: String,
    pub(crate) alias: String,
    pub(crate) path: &'static str,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// An entry of `upscalers`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WebUiUpscaler")]
pub(crate) struct Upscaler {
    pub(crate) name: &'static str,
    pub(crate) model_name: Option<String>,
    pub(crate) model_path: Option<String>,
    pub(crate) model_url: Option<String>,
    pub(crate) scale: f64,
}

/// An entry of `latent-upscale-modes`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WebUiLatentUpscaler")]
pub(crate) struct LatentUpscaler {
    pub(crate) name: &'static str,
}

/// `embeddings`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WebUiEmbeddings")]
pub(crate) struct Embeddings {
    pub(crate) loaded: BTreeMap<String, Embedding>,
    pub(crate) skipped: BTreeMap<String, Embedding>,
}

/// A textual inversion.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(rename = "WebUiEmbedding")]
pub(crate) struct Embedding {
    pub(crate) step: Option<u64>,
    pub(crate) sd_checkpoint: Option<String>,
    pub(crate) sd_checkpoint_name: Option<String>,
}

/// `scripts`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WebUiScripts")]
pub(crate) struct Scripts {
    pub(crate) txt2img: &'static [&'static str],
    pub(crate) img2img: &'static [&'static str],
}

/// An error in the form that the web UI's own have, with our fields beside.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WebUiError")]
pub(crate) struct Refusal {
    /// For programs.
    pub(crate) error: ErrorCode,
    /// For people.
    pub(crate) detail: String,
    pub(crate) body: &'static str,
    /// `detail` again.
    pub(crate) errors: String,
    /// The broken fields, where the request is at fault.
    pub(crate) fields: Vec<FieldError>,
}

impl From<ErrorDetail> for Refusal {
    fn from(ErrorDetail { code, message, fields }: ErrorDetail) -> Self {
        Self { error: code, detail: message.clone(), body: "", errors: message, fields }
    }
}
