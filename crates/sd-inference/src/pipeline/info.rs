//! What a pipeline says of itself.

use crate::LatentRgb;
use crate::UpscalerInfo;

/// What a model is and can do.
#[derive(Debug, Clone)]
pub struct PipelineInfo {
    /// `stable-diffusion` or `stable-diffusion-xl`.
    pub family: &'static str,
    /// Whether the model was made for inpainting and does nothing else.
    pub inpainting: bool,
    /// Whether it refines pictures, or what another model began (the refiner of SDXL), and cannot begin with noise.
    pub refines: bool,
    /// Whether the UNet takes the guidance scale as a condition (models distilled with guidance, as LCM): it is asked once
    /// in each step then, and a negative prompt, rescaling and an interval have no effect.
    pub guidance_embedding: bool,
    /// The device, as `cpu`, `cuda:0` or `metal`.
    pub device: String,
    /// The number format of the weights, as `f32`, `bf16` or `f16`.
    pub dtype: &'static str,
    /// Width and height must be multiples of this many pixels.
    pub size_multiple: usize,
    /// The most layers of the text encoder that `clip_skip` can leave out.
    pub max_clip_skip: usize,
    /// How many text encoders read the prompt; with two, each may get a prompt of its own.
    pub text_encoders: usize,
    /// The textual inversions that prompts may name.
    pub embeddings: Vec<String>,
    /// Width in pixels where a request gives none.
    pub default_width: usize,
    /// Height in pixels where a request gives none.
    pub default_height: usize,
    /// Steps where a request gives none.
    pub default_steps: usize,
    /// Guidance scale where a request gives none.
    pub default_guidance_scale: f64,
    /// The sampler where a request gives none.
    pub default_sampler: crate::schedulers::Sampler,
    /// The schedule where a request gives none.
    pub default_schedule: crate::schedulers::Schedule,
    /// How latents become colours in previews; `None` where nobody knows.
    pub latent_rgb: Option<LatentRgb>,
    /// Whether a tiny autoencoder was loaded for previews.
    pub preview_vae: bool,
    /// Whether a tiny autoencoder stands in the place of the model's VAE.
    pub tiny_vae: bool,
    /// Whether pictures can be encoded: not by a tiny autoencoder whose file has only the decoder.
    pub encodes: bool,
    /// Whether a network was loaded that second passes may enlarge with.
    pub upscaler: Option<UpscalerInfo>,
    /// Whether a model was loaded that may take over late in a run ([`Refiner`](crate::Refiner)).
    pub refiner: bool,
    /// Things worth telling whoever loaded the model, such as a sampler that had to be replaced.
    pub notes: Vec<String>,
}
