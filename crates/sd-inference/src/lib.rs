//! Stable Diffusion pipelines to embed in any program: no queue, no runtime, no network.
//!
//! A [`Pipeline`] is a loaded model. [`Pipeline::begin`] turns a [`GenerationRequest`] into a [`Generation`], a value
//! that is advanced step by step: progress, cancellation and deadlines are loops in the caller.
//!
//! ```no_run
//! use sd_inference::{GenerationRequest, LoadOptions, ModelSource, Pipeline};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pipeline = Pipeline::load(&ModelSource::folder("models/demo")?, &LoadOptions::default())?;
//! let mut generation = pipeline.begin(&GenerationRequest::new("a red circle on green grass"))?;
//! while let Some(step) = generation.step()? {
//!     println!("{} of {}", step.index, step.total);
//! }
//! for (image, seed) in generation.finish()?.images {
//!     image.save(format!("circle-{seed}.png"))?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The same seed gives the image that diffusers gives: [`rng`] draws torch's noise and [`schedulers`] follow its
//! samplers, with the state of each run in a value of its own.

mod autoencoder;
mod batch;
mod circular;
mod condition;
mod control;
mod error;
mod generation;
mod guidance;
mod init;
pub mod machine;
mod mask_blur;
mod outpaint;
mod pipeline;
mod preview;
pub mod prompt;
mod repaint;
mod request;
pub mod rng;
pub mod schedulers;
mod upscale;

pub use batch::advance;
pub use candle_core::{DType, Device};
pub use condition::PromptStates;
pub use control::{Control, ControlNet, preprocess};
pub use error::{Error, Result};
pub use generation::{Finished, Generation, Hires, Refiner, Step, Timings, Upscaler};
pub use guidance::GuidanceInterval;
pub use init::InitImage;
pub use outpaint::Extend;
pub use pipeline::{
    AppliedLora, LoadOptions, MemoryEstimate, MemoryLimit, ModelDefaults, ModelSource, Pipeline,
    PipelineInfo, PromptReader, RandomModel, VaeTiling,
};
pub use preview::{Background, LatentRgb, PendingPreview, PreviewMethod};
pub use repaint::InitMask;
pub use request::GenerationRequest;
pub use sd_models::lora::Lora;
pub use sd_models::nn::{Seamless, cpu_kernels, cpu_kernels_report, cpu_multiplies_bf16};
pub use sd_models::{
    EmbeddedFile, ModelFiles, accelerators, cpu_kernels_warning, inspect, measure_peak, registry, save,
    single_file, work,
};
pub use upscale::{UpscaleNetwork, UpscaleOptions, UpscaleTiles, UpscalerInfo, Upscaling};
