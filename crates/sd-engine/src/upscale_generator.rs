//! Enlarging a picture, a tile at a time: beside a model that draws, or without one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use image::RgbImage;
use operations_contract::{ModelCapabilities, OperationKind, UpscaleModel};
use sd_inference::{MemoryLimit, UpscaleNetwork, UpscaleOptions, UpscalerInfo, Upscaling};

use crate::generator::{
    ActiveGeneration, GeneratedImages, GenerationTimings, Generator, GeneratorError, StepReport, StepResult,
};
use crate::picture::Picture;
use crate::pipeline_generator::{failure, own_picture};
use crate::task::{GenerationTask, UpscaleTask};

/// How A1111 calls what was done with a finished picture.
const POSTPROCESS_SCALE: &str = "Postprocess upscale by";
const POSTPROCESS_UPSCALER: &str = "Postprocess upscaler";

/// A worker that enlarges pictures and draws none.
pub struct UpscaleGenerator {
    network: Arc<UpscaleNetwork>,
    memory: MemoryLimit,
}

impl UpscaleGenerator {
    /// With the network that requests call by its [name](UpscaleNetwork::name), and the memory that it may take.
    pub fn new(network: UpscaleNetwork, memory: MemoryLimit) -> Self {
        Self { network: Arc::new(network), memory }
    }
}

impl Generator for UpscaleGenerator {
    type Active = ActiveUpscale;

    fn capabilities(&self) -> ModelCapabilities {
        let base = ModelCapabilities::text_to_image(self.network.name(), "esrgan");
        ModelCapabilities {
            operations: vec![OperationKind::ImageUpscale],
            upscale_models: vec![described(&self.network.info())],
            features: Vec::new(),
            ..base
        }
    }

    fn begin(&mut self, _: GenerationTask) -> Result<ActiveUpscale, GeneratorError> {
        Err(GeneratorError::Unsupported("a worker with an upscaler alone draws no pictures".into()))
    }

    fn upscale(&mut self, task: UpscaleTask) -> Result<ActiveUpscale, GeneratorError> {
        ActiveUpscale::begin(task, |image, options| {
            self.network.check_memory(self.memory, image.dimensions(), options)?;
            Arc::clone(&self.network).begin(image, options)
        })
    }
}

/// A network as capabilities tell it.
pub(crate) fn described(network: &UpscalerInfo) -> UpscaleModel {
    UpscaleModel {
        name: network.name.clone(),
        scale: network.scale as u32,
        size_multiple: network.size_multiple as u32,
    }
}

/// A picture that is being enlarged.
pub struct ActiveUpscale {
    upscaling: Upscaling,
    /// Width of the picture.
    width: u32,
    /// What files call the network.
    name: String,
    elapsed: Duration,
}

impl ActiveUpscale {
    /// Begins by what a pipeline or a network has for it.
    pub(crate) fn begin(
        task: UpscaleTask,
        begin: impl FnOnce(&RgbImage, &UpscaleOptions) -> sd_inference::Result<Upscaling>,
    ) -> Result<Self, GeneratorError> {
        let UpscaleTask { model, image, options, .. } = task;
        let width = image.width();
        let upscaling = begin(&own_picture(image)?, &options).map_err(failure)?;
        Ok(Self { upscaling, width, name: model, elapsed: Duration::ZERO })
    }
}

impl ActiveGeneration for ActiveUpscale {
    fn step(&mut self) -> StepResult {
        let start = Instant::now();
        let done = self.upscaling.step().map_err(failure)?;
        self.elapsed += start.elapsed();
        Ok(done.map(|(done, total)| StepReport::new(done as u32, total as u32)))
    }

    fn finish(self) -> Result<GeneratedImages, GeneratorError> {
        let start = Instant::now();
        let large: RgbImage = self.upscaling.finish().map_err(failure)?;
        let (width, height) = large.dimensions();
        let scale = f64::from(width) / f64::from(self.width);
        let picture = Picture::from_rgb(width, height, large.into_raw()).map_err(GeneratorError::failed)?;
        let mut images = GeneratedImages::new(vec![picture]);
        images.timings = GenerationTimings {
            denoise_ms: self.elapsed.as_millis() as u64,
            decode_ms: start.elapsed().as_millis() as u64,
            ..GenerationTimings::default()
        };
        images.circumstances = vec![
            (POSTPROCESS_SCALE, format!("{scale:.4}")),
            (POSTPROCESS_UPSCALER, self.name.replace([',', '"', ':', '\n'], " ")),
        ];
        Ok(images)
    }
}
