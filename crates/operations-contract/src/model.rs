//! What a model can do: told to clients, and held against every request before a job exists.

use serde::{Deserialize, Serialize};

use crate::names::{OperationKind, PreviewMethod, RngKind, Sampler, Schedule, Upscaler};

/// A field of the contract that not every model can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Feature {
    /// `loras`
    Loras,
    /// `control`
    Control,
    /// `tiling`
    Tiling,
    /// `hires`
    Hires,
    /// `refiner`
    Refiner,
    /// `timestep_spacing`
    TimestepSpacing,
    /// `clip_skip` above 0
    ClipSkip,
    /// `prompt_weighting`
    PromptWeighting,
    /// `negative_prompt`
    NegativePrompt,
    /// `prompt_2` and `negative_prompt_2`
    #[serde(rename = "prompt_2")]
    Prompt2,
    /// `mask_blur`
    MaskBlur,
    /// `padding_mask_crop`
    PaddingMaskCrop,
    /// `guidance_rescale`
    GuidanceRescale,
    /// `guidance_interval`
    GuidanceInterval,
    /// `eta`, with the samplers that take it
    Eta,
}

/// A network that enlarges pictures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UpscaleModel {
    /// Its name in requests.
    pub name: String,
    /// By how much it makes sides longer.
    pub scale: u32,
    /// Its tiles begin at multiples of so many pixels.
    pub size_multiple: u32,
}

/// A model and its limits, as `GET /v1/models` tells them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ModelCapabilities {
    /// Its name in requests.
    pub id: String,
    /// Other names that mean it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Its family: `sd15`, `sdxl`, ...
    pub family: String,
    /// What it can do.
    pub operations: Vec<OperationKind>,
    /// Width when the request names none.
    pub default_width: u32,
    /// Height when the request names none.
    pub default_height: u32,
    /// Shortest side.
    pub min_side: u32,
    /// Longest side.
    pub max_side: u32,
    /// Sides are multiples of it.
    pub size_multiple: u32,
    /// Images of one job at most.
    pub max_images: u32,
    /// Layers of the text encoder that `clip_skip` can leave out at most; 0 where the field does not work.
    #[serde(default)]
    pub max_clip_skip: u32,
    /// Samplers that work.
    pub samplers: Vec<Sampler>,
    /// Sampler when the request names none.
    pub default_sampler: Sampler,
    /// Schedules that work.
    pub schedules: Vec<Schedule>,
    /// Schedule when the request names none.
    pub default_schedule: Schedule,
    /// Steps when the request names none.
    pub default_steps: u32,
    /// Guidance when the request names none.
    pub default_guidance_scale: f64,
    /// Noise sources that work.
    pub rngs: Vec<RngKind>,
    /// Ways to make previews; empty: none.
    pub previews: Vec<PreviewMethod>,
    /// What a second pass can enlarge with.
    #[serde(default)]
    pub upscalers: Vec<Upscaler>,
    /// The networks that `image_upscale` can name; empty: none is loaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upscale_models: Vec<UpscaleModel>,
    /// The names by which `control` can ask for a ControlNet; empty: none is loaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controls: Vec<String>,
    /// Names that `loras` can give; empty where the field does not work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<String>,
    /// The name of the model that takes over with `refiner`; absent: none is loaded, or it has no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refiner: Option<String>,
    /// Further fields that work.
    pub features: Vec<Feature>,
    /// Textual inversions that prompts may name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub embeddings: Vec<String>,
    /// Where it runs: `cpu`, `cuda:0`, ...
    pub device: String,
    /// The type of its numbers: `f32`, `bf16`, `f16`.
    pub dtype: String,
}

impl ModelCapabilities {
    /// A text-to-image model of the usual kind: 512 x 512, 20 steps, guidance 7.5, `euler` on `normal`, f32 on the CPU
    /// and none of the [`Feature`]s. Made to be changed by struct update.
    pub fn text_to_image(id: impl Into<String>, family: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            aliases: Vec::new(),
            family: family.into(),
            operations: vec![OperationKind::ImageGeneration],
            default_width: 512,
            default_height: 512,
            min_side: 64,
            max_side: 2048,
            size_multiple: 8,
            max_images: 8,
            max_clip_skip: 0,
            samplers: vec![Sampler::Euler],
            default_sampler: Sampler::Euler,
            schedules: vec![Schedule::Normal],
            default_schedule: Schedule::Normal,
            default_steps: 20,
            default_guidance_scale: 7.5,
            rngs: vec![RngKind::TorchCpu],
            previews: Vec::new(),
            upscalers: Vec::new(),
            upscale_models: Vec::new(),
            controls: Vec::new(),
            loras: Vec::new(),
            refiner: None,
            features: vec![Feature::NegativePrompt],
            embeddings: Vec::new(),
            device: "cpu".into(),
            dtype: "f32".into(),
        }
    }

    /// Whether a request's `model` means this one.
    pub fn answers_to(&self, name: &str) -> bool {
        self.id == name || self.aliases.iter().any(|alias| alias == name)
    }

    /// Whether a field works.
    pub fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }
}

/// What a model is up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ModelState {
    /// Its weights are in memory.
    Loaded,
    /// They are being read.
    Loading,
    /// They are not in memory; the first job loads them.
    Unloaded,
    /// The last attempt to load them failed; the next job is another.
    Failed,
}

/// A model as clients are told it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ModelView {
    /// What it can do.
    #[serde(flatten)]
    pub capabilities: ModelCapabilities,
    /// Whether it is loaded.
    pub state: ModelState,
    /// The memory that its weights take when it is loaded, in bytes, as estimated from its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Why it could not be loaded, or cannot be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The answer of `GET /v1/models`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ModelList {
    /// All models of the worker, the default first; none before it is ready.
    pub models: Vec<ModelView>,
}
