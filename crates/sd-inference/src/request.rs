//! What a caller asks a pipeline for.

use sd_models::nn::Seamless;

use crate::pipeline::AppliedLora;
use crate::rng::NoiseKind;
use crate::schedulers::{Sampler, Schedule, TimestepSpacing};
use crate::{Control, GuidanceInterval, Hires, InitImage, PreviewMethod, Refiner};

/// A request for images of a text, from noise or from a picture. Whatever is `None` is the model's own choice.
///
/// ```
/// use sd_inference::GenerationRequest;
///
/// let request = GenerationRequest { seed: 7, steps: Some(12), ..GenerationRequest::new("a red circle") };
/// assert_eq!(request.num_images, 1);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationRequest {
    /// What the image should show.
    pub prompt: String,
    /// What it should not show. `None` is no text at all, which some models treat otherwise than an empty one.
    pub negative_prompt: Option<String>,
    /// What the second text encoder reads instead of `prompt`, for models with two. Empty is the same as none.
    pub prompt_2: Option<String>,
    /// What it reads instead of `negative_prompt`, likewise.
    pub negative_prompt_2: Option<String>,
    /// Whether the texts hold weights, breaks and wildcards ([`prompt`](crate::prompt)) and may have several chunks.
    /// Otherwise they are taken as they are, and cut where the text encoder ends.
    pub prompt_weighting: bool,
    /// Width in pixels, a multiple of [`PipelineInfo::size_multiple`](crate::PipelineInfo::size_multiple).
    pub width: Option<usize>,
    /// Height in pixels, likewise.
    pub height: Option<usize>,
    /// The number of denoising steps; from a picture, its strength's share of them is taken.
    pub steps: Option<usize>,
    /// How strongly the prompt pulls (Ho and Salimans, 2022); 1 and less turn guidance off.
    pub guidance_scale: Option<f64>,
    /// How far the guided answer is brought back to the spread of the unguided one, 0 to 1: against overexposure, most
    /// of all with zero-terminal-SNR models (Lin and others, 2024, section 3.4).
    pub guidance_rescale: f64,
    /// The part of each pass in which guidance counts; `None`: all of it.
    pub guidance_interval: Option<GuidanceInterval>,
    /// The seed of the first image; image `k` is the one that `seed + k` gives alone.
    pub seed: u64,
    /// The update rule.
    pub sampler: Option<Sampler>,
    /// The spread of noise levels.
    pub schedule: Option<Schedule>,
    /// The layout over training timesteps.
    pub timestep_spacing: Option<TimestepSpacing>,
    /// How much fresh noise is mixed in, for the samplers that [take it](Sampler::takes_eta).
    pub eta: Option<f64>,
    /// How many images.
    pub num_images: usize,
    /// The generator of the noise.
    pub rng: NoiseKind,
    /// How many more of the text encoder's last layers to leave out.
    pub clip_skip: usize,
    /// Which edges of the picture meet, so that it tiles.
    pub seamless: Seamless,
    /// A second pass over a larger picture.
    pub hires: Option<Hires>,
    /// When the model that was loaded to refine takes over; `None`: never.
    pub refiner: Option<Refiner>,
    /// What to start from instead of pure noise.
    pub init: Option<InitImage>,
    /// Pictures that steer the run, by a ControlNet each; what they say is added up.
    pub controls: Vec<Control>,
    /// Lets the control pictures speak for themselves: they steer only what the prompt pulls towards, and the less
    /// strongly the finer the detail. Meant for an empty prompt and a guidance scale from 3 to 5.
    pub guess_mode: bool,
    /// The method of the previews that will be asked for: the memory of decoding one beside the steps is counted then. Asking
    /// for others, or for any without saying so here, is allowed.
    pub preview: Option<PreviewMethod>,
    /// Low-rank adapters to apply, each at its scale; their order makes no difference beyond rounding.
    pub loras: Vec<AppliedLora>,
}

impl GenerationRequest {
    /// A request for one image of `prompt` with seed 0 and the model's own choices.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            negative_prompt: None,
            prompt_2: None,
            negative_prompt_2: None,
            prompt_weighting: true,
            width: None,
            height: None,
            steps: None,
            guidance_scale: None,
            guidance_rescale: 0.0,
            guidance_interval: None,
            seed: 0,
            sampler: None,
            schedule: None,
            timestep_spacing: None,
            eta: None,
            num_images: 1,
            rng: NoiseKind::default(),
            clip_skip: 0,
            seamless: Seamless::default(),
            hires: None,
            refiner: None,
            init: None,
            controls: Vec::new(),
            guess_mode: false,
            preview: None,
            loras: Vec::new(),
        }
    }
}
