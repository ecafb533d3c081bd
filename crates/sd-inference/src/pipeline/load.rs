//! From the files of a model to a pipeline.

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{DType, Device};
use sd_models::taesd::AutoencoderTiny;
use sd_models::unet::{Unet2DConditionModel, UnetConfig};
use sd_models::vae::{AutoencoderKl, VaeConfig};
use sd_models::{ModelFiles, Weights};
use serde::Deserialize;

use super::random::RandomModel;
use super::refiner::DescribedRefiner;
use super::text::{Manner, TextEncoders, TextInfo};
use super::{
    Budget, ControlWork, MemoryEstimate, MemoryLimit, ModelDefaults, Parts, PipelineInfo, VaeTiling, Work,
};
use super::{scheduler_file, tiny};
use crate::autoencoder::{Autoencoder, size_multiple};
use crate::schedulers::SchedulerConfig;
use crate::{Error, LatentRgb, Result, UpscaleNetwork, UpscalerInfo};

/// The name of the weight files of UNet and VAE.
pub(super) const DIFFUSION_STEM: &str = "diffusion_pytorch_model";
/// The name of the weight files of text encoders.
pub(super) const TEXT_STEM: &str = "model";
/// The file with a model's own choices.
const DEFAULTS: &str = "sd-worker.json";
/// What SDXL and what was made of it is called.
const XL: &str = "stable-diffusion-xl";
/// The number format of upscalers, whatever that of the model is: a picture is enlarged to the same bytes everywhere.
pub(super) const UPSCALER_DTYPE: DType = DType::F32;

/// Where a pipeline comes from.
#[derive(Debug, Clone)]
pub enum ModelSource {
    /// A folder in the diffusers layout, or what looks like one: a single file, the embedded model.
    Files(ModelFiles),
    /// A full-size model of a known family with random weights, for measuring.
    Random(RandomModel),
}

impl ModelSource {
    /// The model folder at `path`.
    ///
    /// # Errors
    /// As [`ModelFiles::folder`].
    pub fn folder(path: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self::Files(ModelFiles::folder(path)?))
    }
}

/// How to load a pipeline.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Where to compute.
    pub device: Device,
    /// The number format of the weights and activations.
    pub dtype: DType,
    /// How much memory may be taken.
    pub memory: MemoryLimit,
    /// The width in pixels of pictures that the memory must suffice for; `None`: the model's own.
    pub width: Option<usize>,
    /// Their height, likewise.
    pub height: Option<usize>,
    /// When the VAE decodes in tiles.
    pub vae_tiling: VaeTiling,
    /// Files with textual inversions for prompts to name; one that does not fit the model is an error.
    pub embeddings: Vec<PathBuf>,
    /// A folder of such files; those that do not fit are left out, with a note.
    pub embeddings_dir: Option<PathBuf>,
    /// A tiny autoencoder (TAESD, for SDXL TAESDXL) for previews: a folder or a safetensors file. Where none is given, a model
    /// with random weights gets a random one.
    pub preview_vae: Option<PathBuf>,
    /// A network that second passes may enlarge with ([`Upscaler::Network`](crate::Upscaler::Network)): a file as
    /// [`UpscaleNetwork::open`](crate::UpscaleNetwork::open) reads it.
    pub upscaler: Option<PathBuf>,
    /// A model that may take over from this one late in a run ([`Refiner`](crate::Refiner)): the refiner of SDXL, or any
    /// other of the same family. Its VAE is not loaded.
    pub refiner: Option<ModelSource>,
}

impl Default for LoadOptions {
    /// The CPU in f32, which is the reference's precision, within the memory that the machine has.
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            dtype: DType::F32,
            memory: MemoryLimit::default(),
            width: None,
            height: None,
            vae_tiling: VaeTiling::default(),
            embeddings: Vec::new(),
            embeddings_dir: None,
            preview_vae: None,
            upscaler: None,
            refiner: None,
        }
    }
}

#[derive(Deserialize)]
struct ModelIndex {
    #[serde(rename = "_class_name", default)]
    class_name: String,
    #[serde(default)]
    force_zeros_for_empty_prompt: bool,
    #[serde(default)]
    requires_aesthetics_score: bool,
}

/// The weights and configurations of a model, wherever they come from.
pub(super) struct Opened<'a> {
    pub source: &'a ModelSource,
    pub options: &'a LoadOptions,
}

impl Opened<'_> {
    /// The tensors of the part in `folder`.
    pub(super) fn weights(&self, folder: &str, stem: &str) -> Result<Weights> {
        let LoadOptions { device, dtype, .. } = self.options;
        Ok(match self.source {
            ModelSource::Files(files) => Weights::open(files, folder, stem, device, *dtype)?,
            ModelSource::Random(_) => Weights::random(seed_of(folder), device, *dtype),
        })
    }

    /// The memory that the weights of the part in `folder` will take, in bytes.
    pub(super) fn loaded_bytes(&self, folder: &str, stem: &str) -> Result<u64> {
        let dtype = self.options.dtype;
        match self.source {
            ModelSource::Files(_) => Ok(self.weights(folder, stem)?.loaded_bytes()),
            ModelSource::Random(model) => Ok(model.loaded_bytes(folder, dtype.size_in_bytes())),
        }
    }

    /// The text of the JSON file `relative`.
    pub(super) fn text(&self, relative: &str) -> Result<String> {
        match self.source {
            ModelSource::Files(files) => {
                let bytes = files.bytes(relative)?;
                Ok(String::from_utf8_lossy(bytes.as_slice()).into_owned())
            }
            ModelSource::Random(model) => Ok(model.config(relative).to_owned()),
        }
    }

    /// The parsed JSON file `relative`.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, relative: &str) -> Result<T> {
        let text = self.text(relative)?;
        sd_models::json::from_slice(text.as_bytes())
            .map_err(|source| sd_models::Error::Json { file: self.describe(relative), source }.into())
    }

    /// Whether the part has the file.
    pub(super) fn contains(&self, relative: &str) -> bool {
        match self.source {
            ModelSource::Files(files) => files.contains(relative),
            ModelSource::Random(model) => model.has(relative),
        }
    }

    /// What error messages call the model and its number format.
    pub(super) fn name(&self) -> String {
        let name = match self.source {
            ModelSource::Files(files) => files.name(),
            ModelSource::Random(model) => format!("random {}", model.name()),
        };
        format!("{name} in {}", dtype_name(self.options.dtype))
    }

    /// What error messages call the file.
    pub(super) fn describe(&self, relative: &str) -> String {
        match self.source {
            ModelSource::Files(files) => files.describe(relative),
            ModelSource::Random(model) => format!("random {}:{relative}", model.name()),
        }
    }
}

/// What a folder says of itself, read and checked before any weight is.
pub(super) struct Described {
    index: ModelIndex,
    pub(super) family: &'static str,
    pub(super) unet: UnetConfig,
    pub(super) vae: VaeConfig,
    defaults: ModelDefaults,
    pub(super) budget: Budget,
}

impl Described {
    pub(super) fn read(opened: &Opened<'_>) -> Result<Self> {
        let options = opened.options;
        if options.device.is_cpu() && !matches!(options.dtype, DType::F32 | DType::BF16) {
            return Err(Error::InvalidRequest {
                field: "dtype",
                value: format!("{:?}", options.dtype).to_lowercase(),
                limit: "f32 or bf16 on the cpu; f16 needs a GPU".into(),
            });
        }
        let index: ModelIndex = opened.json("model_index.json")?;
        let family = match index.class_name.as_str() {
            "StableDiffusionPipeline"
            | "StableDiffusionInpaintPipeline"
            | "LatentConsistencyModelPipeline" => "stable-diffusion",
            "StableDiffusionXLPipeline"
            | "StableDiffusionXLInpaintPipeline"
            | "StableDiffusionXLImg2ImgPipeline" => XL,
            other => {
                return Err(Error::UnsupportedModel {
                    model: opened.describe("model_index.json"),
                    reason: format!(
                        "the pipeline class is `{other}`; StableDiffusionPipeline, StableDiffusionXLPipeline, \
                         their inpainting forms, StableDiffusionXLImg2ImgPipeline and \
                         LatentConsistencyModelPipeline can be run"
                    ),
                });
            }
        };
        let unet: UnetConfig = opened.json("unet/config.json")?;
        unet.check(&opened.describe("unet/config.json"))?;
        let vae: VaeConfig = opened.json("vae/config.json")?;
        vae.check(&opened.describe("vae/config.json"))?;
        // Latents, or for inpainting also the mask and the picture's latents.
        if ![vae.latent_channels, 2 * vae.latent_channels + 1].contains(&unet.in_channels) {
            return Err(Error::UnsupportedModel {
                model: opened.describe("unet/config.json"),
                reason: format!(
                    "`in_channels` is {}, but the VAE has {} latent channels: neither as many nor, for inpainting, \
                     twice as many and one",
                    unet.in_channels, vae.latent_channels
                ),
            });
        }
        let defaults = match opened.contains(DEFAULTS) {
            true => opened.json(DEFAULTS)?,
            false => ModelDefaults::default(),
        };
        let native = native_side(&unet, &vae);
        defaults.check(&opened.describe(DEFAULTS), native, size_multiple(&vae))?;
        Ok(Self { index, family, unet, vae, defaults, budget: Budget::new(opened)? })
    }

    /// Whether it was made for inpainting.
    pub(super) fn inpaints(&self) -> bool {
        self.unet.in_channels != self.vae.latent_channels
    }

    /// How it uses its text encoders.
    fn manner(&self) -> Manner {
        let force_zeros_for_empty_prompt = self.index.force_zeros_for_empty_prompt;
        Manner { pooled: self.family == XL, force_zeros_for_empty_prompt }
    }

    /// Checks that the text encoders give what the UNet reads.
    fn check_text(&self, opened: &Opened<'_>, text: &TextInfo) -> Result<()> {
        let refuse =
            |reason| Err(Error::UnsupportedModel { model: opened.describe("unet/config.json"), reason });
        let (wanted, width) = (self.unet.text_width(), text.width());
        if width != wanted {
            return refuse(format!("`cross_attention_dim` is {wanted}, but the text encoders give {width}"));
        }
        let expected = if self.index.requires_aesthetics_score { 5 } else { 6 };
        let Some(pooled) = text.pooled_width else { return Ok(()) };
        match self.unet.time_ids(pooled) == Some(expected) {
            true => Ok(()),
            false => refuse(format!(
                "`projection_class_embeddings_input_dim` is not {expected} times `addition_time_embed_dim` and {pooled} \
                 for the pooled text; `requires_aesthetics_score` in model_index.json tells a refiner, which has 5"
            )),
        }
    }

    /// Width and height where a request gives none.
    fn default_size(&self) -> (usize, usize) {
        let native = native_side(&self.unet, &self.vae);
        (self.defaults.default_width.unwrap_or(native), self.defaults.default_height.unwrap_or(native))
    }

    fn scheduler(&self, opened: &Opened<'_>) -> Result<SchedulerConfig> {
        let scheduler = scheduler_file::read(opened)?;
        Ok(match self.family {
            // The reference corrects two settings that early checkpoints were saved without; its XL pipeline does not.
            "stable-diffusion" => scheduler.with_stable_diffusion_fixes(),
            _ => scheduler.for_sdxl(),
        })
    }

    /// The work on one picture with guidance.
    fn usual_work(&self, options: &LoadOptions) -> Work {
        let (width, height) = self.default_size();
        let (width, height) = (options.width.unwrap_or(width), options.height.unwrap_or(height));
        let previews = options.preview_vae.is_some() && options.device.is_cpu();
        let beside = if previews { AutoencoderTiny::decode_workspace(height, width) } else { 0 };
        Work { width, height, batch: 2, control: ControlWork::default(), enlarging: 0, beside }
    }
}

pub(super) fn estimate_memory(source: &ModelSource, options: &LoadOptions) -> Result<MemoryEstimate> {
    let mut described = Described::read(&Opened { source, options })?;
    let refiner = DescribedRefiner::read(&mut described, options)?;
    let Described { unet, vae, budget, .. } = &described;
    let work = described.usual_work(options);
    let estimate = |unet| budget.estimate(unet, vae, work);
    let later = refiner.as_ref().map_or(0, |refiner| estimate(&refiner.described.unet).workspace);
    let MemoryEstimate { weights, workspace } = estimate(unet);
    Ok(MemoryEstimate { weights, workspace: workspace.max(later) })
}

pub(super) fn describe(source: &ModelSource, options: &LoadOptions) -> Result<PipelineInfo> {
    let opened = Opened { source, options };
    let mut described = Described::read(&opened)?;
    let refiner = DescribedRefiner::read(&mut described, options)?;
    let scheduler = described.scheduler(&opened)?;
    let text = TextInfo::read(&opened, described.manner())?;
    described.check_text(&opened, &text)?;
    let mut info = info(&opened, &described, &text, &scheduler)?;
    info.refiner = refiner.is_some();
    let vae = opened.weights("vae", DIFFUSION_STEM)?;
    info.tiny_vae = AutoencoderTiny::is_in(&vae);
    info.encodes = !info.tiny_vae || AutoencoderTiny::has_encoder_in(&vae);
    info.notes.extend(text.notes);
    Ok(info)
}

pub(super) fn load(source: &ModelSource, options: &LoadOptions) -> Result<Parts> {
    let opened = Opened { source, options };
    let mut described = Described::read(&opened)?;
    let refiner = DescribedRefiner::read(&mut described, options)?;
    // The weights of both count from the beginning, so both are named.
    let name = match &refiner {
        Some(refiner) => format!("{} with {}", opened.name(), refiner.name()),
        None => opened.name(),
    };
    let work = described.usual_work(options);
    described.budget.check_model(&described.unet, &described.vae, work, &name)?;
    if let Some(refiner) = &refiner {
        described.budget.check_model(&refiner.described.unet, &described.vae, work, &name)?;
    }
    let mut parts = parts(&opened, described, None)?;
    if let Some(refiner) = refiner {
        parts.refiner = Some(Arc::new(refiner.load(&parts)?));
        parts.info.refiner = true;
    }
    Ok(parts)
}

/// The parts of a model, with a VAE of its own unless another is given.
pub(super) fn parts(
    opened: &Opened<'_>,
    described: Described,
    vae: Option<Arc<Autoencoder>>,
) -> Result<Parts> {
    let options = opened.options;
    let scheduler = described.scheduler(opened)?;
    let (text, notes) = TextEncoders::load(opened, described.manner())?;
    described.check_text(opened, &text.info())?;
    let mut info = info(opened, &described, &text.info(), &scheduler)?;
    info.notes.extend(notes);
    let Described { unet, vae: vae_config, budget, .. } = described;
    let unet = Unet2DConditionModel::load(
        &opened.weights("unet", DIFFUSION_STEM)?,
        unet,
        &opened.describe("unet/config.json"),
    )?;
    let preview_vae = tiny::for_previews(opened, &vae_config)?;
    let vae = match vae {
        Some(vae) => vae,
        None => {
            let dtype = vae_dtype(options.dtype, info.family, &vae_config);
            Arc::new(autoencoder(opened, vae_config, dtype)?)
        }
    };
    (info.tiny_vae, info.encodes) = (matches!(*vae, Autoencoder::Tiny { .. }), vae.encodes());
    let (device, dtype) = (options.device.clone(), options.dtype);
    let (text, unet) = (Arc::new(text), Arc::new(unet));
    let preview_vae = preview_vae.map(Arc::new);
    let upscaler = match &options.upscaler {
        Some(path) => Some(Arc::new(UpscaleNetwork::open(path, &device, UPSCALER_DTYPE)?)),
        None => None,
    };
    let (nets, refiner) = (Arc::default(), None);
    Ok(Parts {
        text,
        unet,
        vae,
        preview_vae,
        upscaler,
        refiner,
        scheduler,
        info,
        budget,
        device,
        dtype,
        nets,
    })
}

/// The model's VAE, or the tiny autoencoder that takes its place ([`ModelFiles::with_vae`]).
fn autoencoder(opened: &Opened<'_>, config: VaeConfig, dtype: DType) -> Result<Autoencoder> {
    let weights = opened.weights("vae", DIFFUSION_STEM)?.with_dtype(dtype);
    let described = opened.describe("vae/config.json");
    if AutoencoderTiny::is_in(&weights) {
        let tiny = AutoencoderTiny::load(&weights, &described)?;
        let tiny = Arc::new(tiny::fitting(tiny, &config, &described)?);
        return Ok(Autoencoder::Tiny { tiny, config: Box::new(config) });
    }
    Ok(Autoencoder::Kl(Box::new(AutoencoderKl::load(&weights, config, &described)?)))
}

fn info(
    opened: &Opened<'_>,
    described: &Described,
    text: &TextInfo,
    scheduler: &SchedulerConfig,
) -> Result<PipelineInfo> {
    let options = opened.options;
    let (default_width, default_height) = described.default_size();
    let (default_sampler, note) = scheduler.default_sampler()?;
    let guidance_embedding = described.unet.time_cond_proj_dim.is_some();
    let mut notes: Vec<_> = note.into_iter().collect();
    let (steps, guidance_scale) = match (guidance_embedding, scheduler.few_steps()) {
        // The defaults of the reference's pipeline for such models.
        (true, _) => (4, 8.5),
        (false, true) => {
            notes.push(
                "the scheduler's settings are those of a model for few steps: 4 steps without guidance, unless a request \
                 says otherwise"
                    .to_owned(),
            );
            (4, 1.0)
        }
        (false, false) => (20, 7.5),
    };
    Ok(PipelineInfo {
        family: described.family,
        inpainting: described.inpaints(),
        refines: described.index.requires_aesthetics_score,
        guidance_embedding,
        device: device_name(&options.device),
        dtype: dtype_name(options.dtype),
        size_multiple: size_multiple(&described.vae),
        max_clip_skip: text.max_clip_skip,
        text_encoders: text.count(),
        embeddings: text.embeddings.clone(),
        default_width,
        default_height,
        default_steps: described.defaults.default_steps.unwrap_or(steps),
        default_guidance_scale: described.defaults.default_guidance_scale.unwrap_or(guidance_scale),
        default_schedule: scheduler.default_schedule(default_sampler)?,
        default_sampler,
        latent_rgb: described
            .defaults
            .latent_rgb
            .filter(|_| described.vae.latent_channels == 4)
            .or_else(|| LatentRgb::of(&described.vae)),
        preview_vae: tiny::is_there(opened),
        tiny_vae: false,
        encodes: true,
        upscaler: options
            .upscaler
            .as_deref()
            .map(|path| UpscalerInfo::read(path, &options.device))
            .transpose()?,
        refiner: false,
        notes,
    })
}

/// The side of the pictures that the model was trained with, in pixels.
fn native_side(unet: &UnetConfig, vae: &VaeConfig) -> usize {
    unet.sample_size.unwrap_or(64).saturating_mul(vae.scale_factor())
}

/// In f16 the VAE of SDXL leaves the range of its numbers and draws black, unless it was trained not to: then its
/// configuration says so. Reference: `StableDiffusionXLPipeline.upcast_vae`.
fn vae_dtype(dtype: DType, family: &str, vae: &VaeConfig) -> DType {
    match dtype {
        DType::F16 if family == XL && vae.force_upcast => DType::F32,
        dtype => dtype,
    }
}

fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "f16",
        DType::BF16 => "bf16",
        _ => "f32",
    }
}

fn device_name(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => "cpu".into(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { .. } => "metal".into(),
    }
}

/// Each part gets weights of its own.
fn seed_of(folder: &str) -> u64 {
    folder.bytes().fold(0, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_vae_that_would_overflow_is_kept_in_f32() {
        let vae = |json: &str| serde_json::from_str::<VaeConfig>(json).unwrap();
        let (usual, mended) = (vae("{}"), vae(r#"{"force_upcast": false}"#));
        assert_eq!(vae_dtype(DType::F16, "stable-diffusion-xl", &usual), DType::F32);
        assert_eq!(vae_dtype(DType::F16, "stable-diffusion-xl", &mended), DType::F16);
        assert_eq!(vae_dtype(DType::F16, "stable-diffusion", &usual), DType::F16);
        assert_eq!(vae_dtype(DType::BF16, "stable-diffusion-xl", &usual), DType::BF16);
    }
}
