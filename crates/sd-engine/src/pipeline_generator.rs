//! The generator behind a real model: [`sd_inference::Pipeline`].

use std::collections::BTreeMap;
use std::str::FromStr;

use image::{GrayImage, RgbImage};
use operations_contract::{
    Feature, ModelCapabilities, OperationKind, Preview, PreviewMethod, RngKind, Upscaler,
};
use sd_inference::rng::NoiseKind;
use sd_inference::schedulers;
use sd_inference::{
    AppliedLora, Control, ControlNet, Generation, GenerationRequest, GuidanceInterval, InitImage, InitMask,
    Lora, Pipeline, PipelineInfo, Seamless, Step,
};

use crate::generator::{
    ActiveGeneration, GeneratedImages, GenerationTimings, Generator, GeneratorError, PreviewPicture,
    StepReport, StepResult,
};
use crate::made_with::{self, Circumstance, PartNames};
use crate::picture::{Mask, Picture};
use crate::prompt_check::PromptCheck;
use crate::task::{ControlTask, GenerationTask, Source, UpscaleTask};
use crate::upscale_generator::{ActiveUpscale, described};
use crate::work::Shape;

/// Runs jobs on a loaded [`Pipeline`].
pub struct PipelineGenerator {
    pipeline: Pipeline,
    id: String,
    aliases: Vec<String>,
    /// Each by the name that requests call it.
    controlnets: Vec<(String, ControlNet)>,
    loras: BTreeMap<String, Lora>,
    parts: PartNames,
    max_batch: usize,
    /// The pixels of the largest picture that shares a forward pass.
    max_batch_pixels: u64,
}

/// What requests call a pipeline and what belongs to it.
#[derive(Debug, Clone, Default)]
pub struct PipelineNames {
    /// The model's id.
    pub id: String,
    /// Other names of it.
    pub aliases: Vec<String>,
    /// Its ControlNets.
    pub controls: Vec<String>,
    /// Its adapters.
    pub loras: Vec<String>,
    /// Its refiner; counts only where one is loaded.
    pub refiner: Option<String>,
}

/// What a pipeline can do, loaded or [described](Pipeline::describe), under these names.
pub fn pipeline_capabilities(info: &PipelineInfo, names: PipelineNames) -> ModelCapabilities {
    let PipelineNames { id, aliases, controls, loras, refiner } = names;
    let base = ModelCapabilities::text_to_image(id, info.family);
    ModelCapabilities {
        aliases,
        operations: OperationKind::ALL.iter().copied().filter(|kind| can(info, *kind)).collect(),
        upscale_models: info.upscaler.iter().map(described).collect(),
        default_width: info.default_width as u32,
        default_height: info.default_height as u32,
        // Below the native size of small models nothing is refused that the VAE can hold.
        min_side: base.min_side.min(info.default_width.min(info.default_height) as u32),
        size_multiple: info.size_multiple as u32,
        max_clip_skip: info.max_clip_skip as u32,
        samplers: renamed(schedulers::Sampler::ALL),
        default_sampler: named(&info.default_sampler).unwrap_or(base.default_sampler),
        schedules: renamed(schedulers::Schedule::ALL),
        default_schedule: named(&info.default_schedule).unwrap_or(base.default_schedule),
        default_steps: info.default_steps as u32,
        default_guidance_scale: info.default_guidance_scale,
        previews: [
            (PreviewMethod::LatentRgb, info.latent_rgb.is_some()),
            (PreviewMethod::Taesd, info.preview_vae || info.tiny_vae),
            (PreviewMethod::Vae, true),
        ]
        .into_iter()
        .filter_map(|(method, works)| works.then_some(method))
        .collect(),
        upscalers: [
            (Upscaler::Latent, true),
            (Upscaler::Lanczos, info.encodes),
            (Upscaler::Network, info.encodes && info.upscaler.is_some()),
        ]
        .into_iter()
        .filter_map(|(upscaler, there)| there.then_some(upscaler))
        .collect(),
        rngs: vec![RngKind::TorchCpu, RngKind::Philox],
        features: [
            Feature::NegativePrompt,
            Feature::ClipSkip,
            Feature::MaskBlur,
            Feature::PaddingMaskCrop,
            Feature::PromptWeighting,
            Feature::Tiling,
            Feature::Hires,
            Feature::GuidanceRescale,
            Feature::GuidanceInterval,
            Feature::Eta,
            Feature::TimestepSpacing,
        ]
        .into_iter()
        .chain((info.text_encoders > 1).then_some(Feature::Prompt2))
        .chain(info.refiner.then_some(Feature::Refiner))
        .chain((!controls.is_empty()).then_some(Feature::Control))
        .chain((!loras.is_empty()).then_some(Feature::Loras))
        .collect(),
        embeddings: info.embeddings.clone(),
        controls,
        loras,
        refiner: refiner.filter(|_| info.refiner),
        device: info.device.clone(),
        dtype: info.dtype.into(),
        ..base
    }
}

/// What kind of picture a model draws from what; a tiny autoencoder without an encoder begins with none.
fn can(info: &PipelineInfo, kind: OperationKind) -> bool {
    match kind {
        OperationKind::ImageGeneration => !info.inpainting && !info.refines,
        OperationKind::ImageTransform => !info.inpainting && info.encodes,
        OperationKind::ImageUpscale => info.upscaler.is_some(),
        _ => info.encodes,
    }
}

impl PipelineGenerator {
    /// A generator that requests call `id` or one of `aliases`.
    pub fn new(pipeline: Pipeline, id: impl Into<String>, aliases: Vec<String>) -> Self {
        Self {
            pipeline,
            id: id.into(),
            aliases,
            controlnets: Vec::new(),
            loras: BTreeMap::new(),
            parts: PartNames::default(),
            max_batch: 1,
            max_batch_pixels: u64::MAX,
        }
    }

    /// With ControlNets of the same pipeline, by the names that requests call them.
    #[must_use]
    pub fn with_controlnets(self, controlnets: Vec<(String, ControlNet)>) -> Self {
        Self { controlnets, ..self }
    }

    /// With adapters by the names that requests call them. They fit the model: [`Pipeline::check_lora`] accepted them.
    #[must_use]
    pub fn with_loras(self, loras: BTreeMap<String, Lora>) -> Self {
        Self { loras, ..self }
    }

    /// With the names by which capabilities and files tell of what was loaded beside it.
    #[must_use]
    pub fn with_part_names(self, parts: PartNames) -> Self {
        Self { parts, ..self }
    }

    /// That advances up to so many jobs in one forward pass; 1 by default.
    #[must_use]
    pub fn with_max_batch(self, max_batch: usize) -> Self {
        Self { max_batch, ..self }
    }

    /// That does so only for pictures of up to so many pixels; by default for all.
    #[must_use]
    pub fn with_max_batch_pixels(self, max_batch_pixels: u64) -> Self {
        Self { max_batch_pixels, ..self }
    }

    fn control(&self, task: ControlTask) -> Result<Control, GeneratorError> {
        let ControlTask { kind, image, strength, start, end } = task;
        let net = self.controlnets.iter().find(|(name, _)| *name == kind).map(|(_, net)| net.clone());
        let Some(net) = net else {
            return Err(GeneratorError::Unsupported(format!("control `{kind}` is beyond this pipeline")));
        };
        Ok(Control { net, image: own_picture(image)?, conditioning_scale: strength, start, end })
    }

    fn applied(&self, task: &operations_contract::Lora) -> Result<AppliedLora, GeneratorError> {
        match self.loras.get(&task.name) {
            Some(lora) => Ok(AppliedLora { lora: lora.clone(), scale: task.scale }),
            None => Err(GeneratorError::Unsupported(format!("lora `{}` is beyond this pipeline", task.name))),
        }
    }
}

impl Generator for PipelineGenerator {
    type Active = ActiveJob;

    fn capabilities(&self) -> ModelCapabilities {
        let names = PipelineNames {
            id: self.id.clone(),
            aliases: self.aliases.clone(),
            controls: self.controlnets.iter().map(|(name, _)| name.clone()).collect(),
            loras: self.loras.keys().cloned().collect(),
            refiner: self.parts.refiner.clone(),
        };
        pipeline_capabilities(self.pipeline.info(), names)
    }

    fn prompt_check(&self) -> Option<PromptCheck> {
        let reader = self.pipeline.prompt_reader().ok()?;
        Some(PromptCheck::of_pipeline(move || Ok(reader.clone())))
    }

    fn max_active(&self) -> usize {
        self.max_batch
    }

    fn has_room(&self, shapes: &[Shape]) -> bool {
        let Some(first) = shapes.first() else { return true };
        let pictures = shapes.iter().map(|shape| shape.images as usize).sum();
        let pixels = u64::from(first.width) * u64::from(first.height);
        let pays = pixels <= self.max_batch_pixels;
        pays && self.pipeline.has_room(first.width as usize, first.height as usize, pictures)
    }

    fn begin(&mut self, task: GenerationTask) -> Result<ActiveJob, GeneratorError> {
        let init = match task.source {
            Source::Noise => None,
            Source::Image { image, strength } => {
                Some(InitImage { image: own_picture(image)?, strength, mask: None })
            }
            Source::Inpaint { image, mask, strength, mask_blur, padding_mask_crop } => {
                let mask = InitMask { mask: own_mask(mask)?, blur: mask_blur, padding: padding_mask_crop };
                Some(InitImage { image: own_picture(image)?, strength, mask: Some(mask) })
            }
        };
        let controls = task.control.into_iter().map(|task| self.control(task)).collect::<Result<_, _>>()?;
        let loras = task.loras.iter().map(|lora| self.applied(lora)).collect::<Result<_, _>>()?;
        let info = self.pipeline.info();
        let request = GenerationRequest {
            negative_prompt: Some(task.negative_prompt).filter(|text| !text.is_empty()),
            width: Some(task.width as usize),
            height: Some(task.height as usize),
            steps: Some(task.steps as usize),
            guidance_scale: Some(task.guidance_scale),
            guidance_rescale: task.guidance_rescale,
            guidance_interval: task
                .guidance_interval
                .map(|interval| GuidanceInterval { start: interval.start, end: interval.end }),
            seed: task.seed,
            sampler: own("sampler", task.sampler, info.default_sampler)?,
            schedule: own("schedule", task.schedule, info.default_schedule)?,
            timestep_spacing: task.timestep_spacing.as_ref().and_then(named),
            eta: task.eta,
            num_images: task.num_images as usize,
            rng: match task.rng {
                RngKind::Philox => NoiseKind::Philox,
                _ => NoiseKind::TorchCpu,
            },
            clip_skip: task.clip_skip as usize,
            prompt_2: task.prompt_2,
            negative_prompt_2: task.negative_prompt_2,
            prompt_weighting: task.prompt_weighting,
            hires: task.hires.map(|hires| sd_inference::Hires {
                scale: hires.scale,
                upscaler: match hires.upscaler {
                    Upscaler::Lanczos => sd_inference::Upscaler::Lanczos,
                    Upscaler::Network => sd_inference::Upscaler::Network,
                    _ => sd_inference::Upscaler::Latent,
                },
                strength: hires.strength,
                steps: hires.steps.map(|steps| steps as usize),
            }),
            refiner: task.refiner.map(|refiner| sd_inference::Refiner { start: refiner.start }),
            seamless: Seamless { x: task.tiling.x, y: task.tiling.y },
            init,
            controls,
            guess_mode: task.guess_mode,
            preview: task.preview.map(|preview| own_method(preview.method)),
            loras,
            ..GenerationRequest::new(task.prompt)
        };
        let generation = self.pipeline.begin(&request).map_err(failure)?;
        let notes = generation.notes().to_vec();
        Ok(ActiveJob::Drawing(Box::new(ActivePipeline {
            generation,
            notes,
            preview: task.preview,
            made_with: self.parts.used(info, &request),
            each_made_with: made_with::textual_inversions(&self.pipeline, &request).map_err(failure)?,
        })))
    }

    fn upscale(&mut self, task: UpscaleTask) -> Result<ActiveJob, GeneratorError> {
        let begin = |image: &RgbImage, options: &sd_inference::UpscaleOptions| {
            self.pipeline.begin_upscale(image, options)
        };
        Ok(ActiveJob::Enlarging(Box::new(ActiveUpscale::begin(task, begin)?)))
    }

    fn advance(&mut self, active: &mut [&mut ActiveJob]) -> Vec<StepResult> {
        let mut generations: Vec<&mut Generation> = active
            .iter_mut()
            .filter_map(|job| match &mut **job {
                ActiveJob::Drawing(drawing) => Some(&mut drawing.generation),
                ActiveJob::Enlarging(_) => None,
            })
            .collect();
        let mut steps = sd_inference::advance(&mut generations).into_iter();
        let report = |job: &mut &mut ActiveJob| match &mut **job {
            ActiveJob::Drawing(drawing) => match steps.next() {
                Some(step) => drawing.report(step),
                None => Err(GeneratorError::failed("a generation was not advanced")),
            },
            ActiveJob::Enlarging(upscale) => upscale.step(),
        };
        active.iter_mut().map(report).collect()
    }
}

/// What a pipeline is at work on.
pub enum ActiveJob {
    /// A picture is drawn.
    Drawing(Box<ActivePipeline>),
    /// A picture is enlarged.
    Enlarging(Box<ActiveUpscale>),
}

impl ActiveGeneration for ActiveJob {
    fn step(&mut self) -> StepResult {
        match self {
            Self::Drawing(drawing) => drawing.step(),
            Self::Enlarging(upscale) => upscale.step(),
        }
    }

    fn decode(&mut self) -> Result<bool, GeneratorError> {
        match self {
            Self::Drawing(drawing) => drawing.decode(),
            Self::Enlarging(_) => Ok(false),
        }
    }

    fn finish(self) -> Result<GeneratedImages, GeneratorError> {
        match self {
            Self::Drawing(drawing) => drawing.finish(),
            Self::Enlarging(upscale) => upscale.finish(),
        }
    }
}

/// One generation on its way.
pub struct ActivePipeline {
    generation: Generation,
    /// What is still to tell: with the first step, or where none is taken with the pictures.
    notes: Vec<String>,
    preview: Option<Preview>,
    made_with: Vec<Circumstance>,
    /// What each image alone was made with.
    each_made_with: Vec<Vec<Circumstance>>,
}

impl ActivePipeline {
    fn preview(&self, method: PreviewMethod) -> Result<Option<PreviewPicture>, GeneratorError> {
        let pending = self.generation.pending_preview(own_method(method)).map_err(failure)?;
        let drawn = |image: RgbImage| {
            let (width, height) = image.dimensions();
            Picture::from_rgb(width, height, image.into_raw()).map_err(GeneratorError::failed)
        };
        Ok(pending.map(|pending| match pending.must_be_decoded() {
            true => PreviewPicture::decoded(move |go_on| {
                pending.picture_while(go_on).map_err(failure)?.map(drawn).transpose()
            }),
            false => PreviewPicture::later(move || drawn(pending.picture().map_err(failure)?)),
        }))
    }
}

impl ActivePipeline {
    /// What is told of a step.
    fn report(&mut self, step: sd_inference::Result<Option<Step>>) -> StepResult {
        let Some(step) = step.map_err(failure)? else { return Ok(None) };
        let mut report = StepReport::new(step.index as u32, step.total as u32);
        report.warnings = std::mem::take(&mut self.notes);
        // The last step's picture is the result.
        let due = |wanted: &Preview| {
            step.index < step.total && step.index.is_multiple_of(wanted.every.max(1) as usize)
        };
        if let Some(wanted) = self.preview.filter(due) {
            report.preview = self.preview(wanted.method)?;
        }
        Ok(Some(report))
    }
}

impl ActiveGeneration for ActivePipeline {
    fn step(&mut self) -> StepResult {
        let step = self.generation.step();
        self.report(step)
    }

    fn decode(&mut self) -> Result<bool, GeneratorError> {
        self.generation.decode_next().map_err(failure)
    }

    fn finish(self) -> Result<GeneratedImages, GeneratorError> {
        let finished = self.generation.finish().map_err(failure)?;
        let pictures = finished
            .images
            .into_iter()
            .map(|(image, _)| {
                let (width, height) = image.dimensions();
                Picture::from_rgb(width, height, image.into_raw()).map_err(GeneratorError::failed)
            })
            .collect::<Result<_, _>>()?;
        let mut images = GeneratedImages::new(pictures);
        // Those that no step has told, because there was none.
        images.warnings = self.notes;
        images.timings = GenerationTimings {
            text_encode_ms: finished.timings.text_encode.as_millis() as u64,
            image_encode_ms: finished.timings.image_encode.as_millis() as u64,
            denoise_ms: finished.timings.denoise.as_millis() as u64,
            decode_ms: finished.timings.decode.as_millis() as u64,
        };
        let tiles = finished.vae_tile.map(|side| (made_with::settings::VAE_TILING, side.to_string()));
        images.circumstances.extend(tiles.into_iter().chain(self.made_with));
        images.circumstances_of_each = self.each_made_with;
        Ok(images)
    }
}

fn own_method(method: PreviewMethod) -> sd_inference::PreviewMethod {
    match method {
        PreviewMethod::Vae => sd_inference::PreviewMethod::Vae,
        PreviewMethod::Taesd => sd_inference::PreviewMethod::Taesd,
        _ => sd_inference::PreviewMethod::LatentRgb,
    }
}

pub(crate) fn own_picture(picture: Picture) -> Result<RgbImage, GeneratorError> {
    let (width, height) = (picture.width(), picture.height());
    RgbImage::from_raw(width, height, picture.into_rgb())
        .ok_or_else(|| GeneratorError::failed("a picture's bytes do not fit its size"))
}

fn own_mask(mask: Mask) -> Result<GrayImage, GeneratorError> {
    let (width, height) = (mask.width(), mask.height());
    GrayImage::from_raw(width, height, mask.into_luma())
        .ok_or_else(|| GeneratorError::failed("a mask's bytes do not fit its size"))
}

/// The contract's names for those of the pipeline that it knows.
fn renamed<A: ToString, B: FromStr>(names: &[A]) -> Vec<B> {
    names.iter().filter_map(named).collect()
}

fn named<A: ToString, B: FromStr>(name: &A) -> Option<B> {
    name.to_string().parse().ok()
}

/// The pipeline's value for a name of the contract; `None` where it is the model's own choice, whose further settings
/// (the variant of a solver, say) then count as well.
fn own<A: ToString, B: FromStr + PartialEq>(
    field: &str,
    name: A,
    default: B,
) -> Result<Option<B>, GeneratorError> {
    let name = name.to_string();
    match name.parse::<B>() {
        Ok(value) => Ok(Some(value).filter(|value| *value != default)),
        Err(_) => Err(GeneratorError::Unsupported(format!("{field} `{name}` is beyond this pipeline"))),
    }
}

pub(crate) fn failure(error: sd_inference::Error) -> GeneratorError {
    error.into()
}

impl From<sd_inference::Error> for GeneratorError {
    fn from(error: sd_inference::Error) -> Self {
        match error {
            sd_inference::Error::InvalidRequest { .. } => GeneratorError::Unsupported(error.to_string()),
            sd_inference::Error::NotEnoughMemory { .. } => GeneratorError::OutOfMemory(error.to_string()),
            error if error.to_string().to_lowercase().contains("out of memory") => {
                GeneratorError::OutOfMemory(error.to_string())
            }
            error => GeneratorError::failed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use operations_contract::{Sampler, Schedule};

    use super::*;

    #[test]
    fn contract_and_pipeline_agree_who_takes_eta() {
        for own in schedulers::Sampler::ALL {
            let sampler: Sampler = named(own).unwrap();
            assert_eq!(sampler.takes_eta(), own.takes_eta(), "{own}");
        }
    }

    #[test]
    fn the_defaults_of_models_have_the_limits_of_requests() {
        use operations_contract::bounds::{GUIDANCE_SCALE, STEPS};
        let base = ModelCapabilities::text_to_image("any", "any");
        let steps = sd_inference::ModelDefaults::STEPS;
        assert_eq!(*steps.start() as u64..=*steps.end() as u64, STEPS);
        assert_eq!(sd_inference::ModelDefaults::GUIDANCE_SCALE, GUIDANCE_SCALE);
        let sides = base.min_side as usize..=base.max_side as usize;
        assert_eq!(sd_inference::ModelDefaults::SIDE, sides);
    }

    /// Whoever asks for the linear map of a model without one gets a refusal that lists the others.
    #[test]
    fn a_model_whose_latents_nobody_can_read_has_other_previews() {
        let source = sd_inference::ModelSource::Random(sd_inference::RandomModel::Sdxl);
        let mut info = Pipeline::describe(&source, &sd_inference::LoadOptions::default()).unwrap();
        let previews = |info: &PipelineInfo| pipeline_capabilities(info, PipelineNames::default()).previews;
        let all = [PreviewMethod::LatentRgb, PreviewMethod::Taesd, PreviewMethod::Vae];
        assert_eq!(previews(&info), all);
        (info.latent_rgb, info.preview_vae) = (None, false);
        assert_eq!(previews(&info), all[2..]);
        // A tiny autoencoder in the place of the VAE decodes previews too.
        info.tiny_vae = true;
        assert_eq!(previews(&info), all[1..]);
    }

    #[test]
    fn every_spacing_of_the_contract_is_one_of_the_pipeline() {
        for spacing in operations_contract::TimestepSpacing::ALL {
            assert!(named::<_, schedulers::TimestepSpacing>(spacing).is_some(), "{spacing}");
        }
    }

    #[test]
    fn every_sampler_and_schedule_of_the_pipeline_has_a_name_in_the_contract() {
        assert_eq!(renamed::<_, Sampler>(schedulers::Sampler::ALL).len(), schedulers::Sampler::ALL.len());
        assert_eq!(renamed::<_, Schedule>(schedulers::Schedule::ALL).len(), schedulers::Schedule::ALL.len());
    }
}
