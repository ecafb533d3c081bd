//! A request as a generator gets it: everything decided, nothing optional that the model has an opinion about.

use operations_contract::{
    GuidanceInterval, Hires, JobEvent, Lora, Preview, Refiner, RngKind, Sampler, Schedule, Tiling,
    TimestepSpacing,
};
use sd_inference::UpscaleOptions;

use crate::generator::{Generator, GeneratorError};
use crate::picture::{Mask, Picture};

/// What a job is about, resolved.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Task {
    Generation(Box<GenerationTask>),
    Upscale(UpscaleTask),
}

impl Task {
    /// The model that does it.
    pub(crate) fn model(&self) -> &str {
        match self {
            Self::Generation(task) => &task.model,
            Self::Upscale(task) => &task.model,
        }
    }

    /// Seed of the first image; 0 where chance has no part in it.
    pub(crate) fn seed(&self) -> u64 {
        match self {
            Self::Generation(task) => task.seed,
            Self::Upscale(_) => 0,
        }
    }

    pub(crate) fn preview(&self) -> Option<Preview> {
        match self {
            Self::Generation(task) => task.preview,
            Self::Upscale(_) => None,
        }
    }

    /// What is told when the engine takes it up.
    pub(crate) fn started(&self) -> JobEvent {
        let (width, height, steps) = match self {
            Self::Generation(task) => (task.width, task.height, task.steps),
            Self::Upscale(task) => (task.width, task.height, task.steps),
        };
        JobEvent::Started { model: self.model().to_owned(), seed: self.seed(), width, height, steps }
    }

    pub(crate) fn begin<G: Generator>(self, generator: &mut G) -> Result<G::Active, GeneratorError> {
        match self {
            Self::Generation(task) => generator.begin(*task),
            Self::Upscale(task) => generator.upscale(task),
        }
    }
}

/// A picture to enlarge.
#[derive(Debug, Clone, PartialEq)]
pub struct UpscaleTask {
    /// The network's name.
    pub model: String,
    /// The picture.
    pub image: Picture,
    /// Scale and tiles.
    pub options: UpscaleOptions,
    /// Width of the result.
    pub width: u32,
    /// Height of the result.
    pub height: u32,
    /// How many tiles there are.
    pub steps: u32,
}

/// One validated and resolved request.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationTask {
    /// Id of the model.
    pub model: String,
    /// What to draw.
    pub prompt: String,
    /// What to keep away from; may be empty.
    pub negative_prompt: String,
    /// What the second text encoder reads instead of the prompt.
    pub prompt_2: Option<String>,
    /// What it reads instead of the negative prompt.
    pub negative_prompt_2: Option<String>,
    /// Width of the result: a multiple of what the model needs.
    pub width: u32,
    /// Height of the result: a multiple of what the model needs.
    pub height: u32,
    /// Denoising steps.
    pub steps: u32,
    /// Classifier-free guidance.
    pub guidance_scale: f64,
    /// How far the guided answer is brought back to the spread of the unguided one; 0: not at all.
    pub guidance_rescale: f64,
    /// The part of the run in which guidance counts; absent: all of it.
    pub guidance_interval: Option<GuidanceInterval>,
    /// Seed of the first image; image k has `seed + k` (wrapping).
    pub seed: u64,
    /// The solver.
    pub sampler: Sampler,
    /// How noise levels are spread.
    pub schedule: Schedule,
    /// How the solver lays its steps over the timesteps of the training; absent: as the model has it.
    pub timestep_spacing: Option<TimestepSpacing>,
    /// How much fresh noise the solver mixes in; absent: as it does unasked.
    pub eta: Option<f64>,
    /// How many images.
    pub num_images: u32,
    /// How many of the text encoder's last layers are left out.
    pub clip_skip: u32,
    /// Whether prompts hold weights, breaks and wildcards, and may have several chunks.
    pub prompt_weighting: bool,
    /// Where the noise comes from.
    pub rng: RngKind,
    /// Low-rank adapters to apply.
    pub loras: Vec<Lora>,
    /// Control images.
    pub control: Vec<ControlTask>,
    /// Whether the control images steer only what the prompt pulls towards.
    pub guess_mode: bool,
    /// Whether the edges of the image meet.
    pub tiling: Tiling,
    /// A second pass over a larger picture.
    pub hires: Option<Hires>,
    /// When a second model takes over.
    pub refiner: Option<Refiner>,
    /// Pictures on the way.
    pub preview: Option<Preview>,
    /// What to start from.
    pub source: Source,
}

/// What a generation starts from. Pictures have their own size; the generator brings them to the task's.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Noise alone: `image_generation`.
    Noise,
    /// A picture: `image_transform`.
    Image {
        /// The picture.
        image: Picture,
        /// How much is redrawn.
        strength: f64,
    },
    /// A picture and what of it to repaint: `image_inpaint`.
    Inpaint {
        /// The picture.
        image: Picture,
        /// As large as the picture.
        mask: Mask,
        /// How much is redrawn.
        strength: f64,
        /// Radius in pixels by which the mask's edge is softened.
        mask_blur: u32,
        /// Works on the mask's bounding box with this margin.
        padding_mask_crop: Option<u32>,
    },
}

/// One control image, decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlTask {
    /// Which control: `canny`, `depth`, ...
    pub kind: String,
    /// The control image, as its ControlNet is to see it.
    pub image: Picture,
    /// Its weight.
    pub strength: f64,
    /// From which part of the run on it counts.
    pub start: f64,
    /// Until which part of the run it counts.
    pub end: f64,
}
