//! The fields of the operations that draw.

use serde::Serialize;

use crate::image_data::ImageData;
use crate::names::{
    ImageFormat, Preprocessor, PreviewMethod, Priority, RngKind, Sampler, Schedule, TimestepSpacing, Upscaler,
};

/// The fields that every operation has which draws. `None` means "as the model has it".
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Common {
    /// Which model; absent: the worker's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What to draw. Empty: whatever the model draws by itself.
    pub prompt: String,
    /// What to keep away from.
    pub negative_prompt: String,
    /// What the second text encoder reads instead of `prompt`, for models with two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_2: Option<String>,
    /// What it reads instead of `negative_prompt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negative_prompt_2: Option<String>,
    /// Width in pixels; absent: the model's own, or that of `init_image`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Height in pixels; absent: the model's own, or that of `init_image`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Denoising steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// Classifier-free guidance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_scale: Option<f64>,
    /// How far the guided answer is brought back to the spread of the unguided one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_rescale: Option<f64>,
    /// The part of the run in which guidance counts; absent: all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_interval: Option<GuidanceInterval>,
    /// Seed of the first image; image k has `seed + k`. Absent: drawn, and reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The solver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampler: Option<Sampler>,
    /// How noise levels are spread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// How the solver lays its steps over the timesteps of the training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestep_spacing: Option<TimestepSpacing>,
    /// How much fresh noise the solver mixes in, for those that take it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<f64>,
    /// How many images.
    pub num_images: u32,
    /// How many of the text encoder's last layers are left out.
    pub clip_skip: u32,
    /// Whether prompts hold weights `(word:1.2)`, `BREAK` and wildcards `{a|b}`, and may have up to 32 chunks; absent: on,
    /// where the model can. Off: they are taken as they are, and cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_weighting: Option<bool>,
    /// Where the noise comes from.
    pub rng: RngKind,
    /// Low-rank adapters to apply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<Lora>,
    /// Control images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub control: Vec<Control>,
    /// Whether the control images steer only what the prompt pulls towards, the less the finer the detail.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub guess_mode: bool,
    /// Whether the edges of the image meet.
    #[serde(skip_serializing_if = "Tiling::is_off")]
    pub tiling: Tiling,
    /// A second pass over a larger picture; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hires: Option<Hires>,
    /// When the worker's refiner takes over; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refiner: Option<Refiner>,
    /// Pictures on the way; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview: Option<Preview>,
    /// The files that come out.
    pub output: Output,
    /// Which waiting job goes first.
    pub priority: Priority,
    /// Milliseconds from acceptance after which the job is given up; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Whether the job is cancelled when the last of those who follow it leaves, once there was one.
    #[serde(skip_serializing_if = "is_false")]
    pub cancel_on_disconnect: bool,
    /// Echoed, for a router above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hive_id: Option<String>,
    /// Echoed, for a router above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            model: None,
            prompt: String::new(),
            negative_prompt: String::new(),
            prompt_2: None,
            negative_prompt_2: None,
            width: None,
            height: None,
            steps: None,
            guidance_scale: None,
            guidance_rescale: None,
            guidance_interval: None,
            seed: None,
            sampler: None,
            schedule: None,
            timestep_spacing: None,
            eta: None,
            num_images: 1,
            clip_skip: 0,
            prompt_weighting: None,
            rng: RngKind::TorchCpu,
            loras: Vec::new(),
            control: Vec::new(),
            guess_mode: false,
            tiling: Tiling::default(),
            hires: None,
            refiner: None,
            preview: None,
            output: Output::default(),
            priority: Priority::Normal,
            deadline_ms: None,
            cancel_on_disconnect: false,
            hive_id: None,
            worker_id: None,
        }
    }
}

/// `image_generation`: text to image.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImageGeneration {
    /// The fields that every operation has which draws.
    #[serde(flatten)]
    pub common: Common,
}

/// `image_transform`: image and text to image.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImageTransform {
    /// The fields that every operation has which draws.
    #[serde(flatten)]
    pub common: Common,
    /// The image to start from.
    pub init_image: ImageData,
    /// How much of it is redrawn: 0 nothing, 1 all.
    pub strength: f64,
}

impl Default for ImageTransform {
    fn default() -> Self {
        Self { common: Common::default(), init_image: ImageData::default(), strength: 0.8 }
    }
}

/// `image_inpaint`: repaints what is white in the mask.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImageInpaint {
    /// The fields that every operation has which draws.
    #[serde(flatten)]
    pub common: Common,
    /// The image to start from.
    pub init_image: ImageData,
    /// White is repainted, black is kept; as large as `init_image`. May be absent with one of the next two.
    #[serde(skip_serializing_if = "ImageData::is_empty")]
    pub mask_image: ImageData,
    /// Takes the mask from the alpha channel of `init_image`: what is transparent is repainted.
    #[serde(skip_serializing_if = "is_false")]
    pub mask_from_alpha: bool,
    /// Continues the picture beyond its edges: the mask is what is new, and what the other two mark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extend: Option<Extend>,
    /// How much of the white part is redrawn: 0 nothing, 1 all.
    pub strength: f64,
    /// Radius in pixels by which the mask's edge is softened.
    pub mask_blur: u32,
    /// Works on the mask's bounding box with this margin, at full size; absent: on the whole image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padding_mask_crop: Option<u32>,
}

impl Default for ImageInpaint {
    fn default() -> Self {
        Self {
            common: Common::default(),
            init_image: ImageData::default(),
            mask_image: ImageData::default(),
            mask_from_alpha: false,
            extend: None,
            strength: 1.0,
            mask_blur: 0,
            padding_mask_crop: None,
        }
    }
}

/// A part of the run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(transform = crate::schema::guidance_interval))]
pub struct GuidanceInterval {
    /// From here on, as a part of the run.
    pub start: f64,
    /// Up to here.
    pub end: f64,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// A larger canvas around a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(transform = crate::schema::extend))]
pub struct Extend {
    /// To the left.
    pub left: u32,
    /// Above.
    pub top: u32,
    /// To the right.
    pub right: u32,
    /// Below.
    pub bottom: u32,
    /// How far into the picture it is repainted along the sides that are extended, so that no seam is left.
    pub overlap: u32,
}

impl Default for Extend {
    fn default() -> Self {
        Self { left: 0, top: 0, right: 0, bottom: 0, overlap: 8 }
    }
}

/// One low-rank adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(transform = crate::schema::lora))]
pub struct Lora {
    /// Its name on the worker.
    pub name: String,
    /// Its weight.
    pub scale: f64,
}

/// One control image.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(transform = crate::schema::control))]
pub struct Control {
    /// Which control, by its name on the worker: `canny`, `depth`, ...
    pub kind: String,
    /// The control image.
    pub image: ImageData,
    /// What is made of it first.
    pub preprocess: Preprocessor,
    /// Its weight.
    pub strength: f64,
    /// From which part of the run on it counts.
    pub start: f64,
    /// Until which part of the run it counts.
    pub end: f64,
}

/// Which edges of the image meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(transform = crate::schema::tiling))]
pub struct Tiling {
    /// Left and right.
    pub x: bool,
    /// Top and bottom.
    pub y: bool,
}

impl Tiling {
    /// Whether neither direction tiles.
    pub fn is_off(&self) -> bool {
        !self.x && !self.y
    }
}

/// A second pass: what the first drew is enlarged and redrawn in part.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(transform = crate::schema::hires))]
pub struct Hires {
    /// How much longer the sides of the result are than `width` and `height`.
    pub scale: f64,
    /// What is enlarged.
    pub upscaler: Upscaler,
    /// How much is redrawn: the part of the second pass's steps that is taken.
    pub strength: f64,
    /// The steps of which that part is taken; absent: as many as the first pass has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
}

impl Default for Hires {
    fn default() -> Self {
        Self { scale: 2.0, upscaler: Upscaler::Latent, strength: 0.7, steps: None }
    }
}

/// A second model that takes over late in a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(transform = crate::schema::refiner))]
pub struct Refiner {
    /// After which share of the noise, counted in timesteps of the training.
    pub start: f64,
}

impl Default for Refiner {
    fn default() -> Self {
        Self { start: 0.8 }
    }
}

/// Pictures on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(transform = crate::schema::preview))]
pub struct Preview {
    /// After every so many steps.
    pub every: u32,
    /// How it is made.
    pub method: PreviewMethod,
    /// Its longer side at most.
    pub max_side: u32,
}

impl Default for Preview {
    fn default() -> Self {
        Self { every: 1, method: PreviewMethod::LatentRgb, max_side: 256 }
    }
}

/// The files that come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(transform = crate::schema::output))]
pub struct Output {
    /// File format.
    pub format: ImageFormat,
    /// Quality of a lossy format.
    pub quality: u32,
    /// Whether the parameters are written into the file.
    pub metadata: bool,
}

impl Default for Output {
    fn default() -> Self {
        Self { format: ImageFormat::Png, quality: 90, metadata: true }
    }
}
