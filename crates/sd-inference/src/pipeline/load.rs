//! From the files of a model to a pipeline.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device};
use sd_models::taesd::AutoencoderTiny;
use sd_models::unet::{Unet2DConditionModel, UnetConfig};
use sd_models::vae::{AutoencoderKl, VaeConfig};
use sd_models::{ModelFiles, Weights};
use serde::Deserialize;

use super::random::RandomModel;
use super::text::{TextEncoders, TextInfo};
use super::{
    Budget, ControlWork, MemoryEstimate, MemoryLimit, ModelDefaults, Parts, PipelineInfo, VaeTiling, Work,
};
use crate::schedulers::SchedulerConfig;
use crate::{Error, LatentRgb, Result, UpscaleNetwork};

/// The name of the weight files of UNet and VAE.
pub(super) const DIFFUSION_STEM: &str = "diffusion_pytorch_model";
/// The name of the weight files of text encoders.
pub(super) const TEXT_STEM: &str = "model";
/// Pictures are cut into latents of at least this many pixels a side, as in the reference's check.
const MIN_SIZE_MULTIPLE: usize = 8;

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
    /// A tiny autoencoder (TAESD, for SDXL TAESDXL) for previews: a folder or a safetensors file.
    pub preview_vae: Option<PathBuf>,
    /// A network that second passes may enlarge with ([`Upscaler::Network`](crate::Upscaler::Network)): a file as
    /// [`UpscaleNetwork::open`](crate::UpscaleNetwork::open) reads it.
    pub upscaler: Option<PathBuf>,
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
        }
    }
}

#[derive(Deserialize)]
struct ModelIndex {
    #[serde(rename = "_class_name", default)]
    class_name: String,
    #[serde(default)]
    force_zeros_for_empty_prompt: bool,
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
        serde_json::from_str(&text)
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
struct Described {
    index: ModelIndex,
    family: &'static str,
    unet: UnetConfig,
    vae: VaeConfig,
    defaults: ModelDefaults,
    budget: Budget,
}

impl Described {
    fn read(opened: &Opened<'_>) -> Result<Self> {
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
            "StableDiffusionXLPipeline" | "StableDiffusionXLInpaintPipeline" => "stable-diffusion-xl",
            other => {
                return Err(Error::UnsupportedModel {
                    model: opened.describe("model_index.json"),
                    reason: format!(
                        "the pipeline class is `{other}`; StableDiffusionPipeline, StableDiffusionXLPipeline, \
                         their inpainting forms and LatentConsistencyModelPipeline can be run"
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
        let defaults = match opened.contains("sd-worker.json") {
            true => opened.json("sd-worker.json")?,
            false => ModelDefaults::default(),
        };
        Ok(Self { index, family, unet, vae, defaults, budget: Budget::new(opened)? })
    }

    /// Width and height where a request gives none.
    fn default_size(&self) -> (usize, usize) {
        let native = self.unet.sample_size.unwrap_or(64).saturating_mul(self.vae.scale_factor());
        (self.defaults.default_width.unwrap_or(native), self.defaults.default_height.unwrap_or(native))
    }

    fn scheduler(&self, opened: &Opened<'_>) -> Result<SchedulerConfig> {
        let scheduler = SchedulerConfig::from_json(&opened.text("scheduler/scheduler_config.json")?)?;
        Ok(match self.family {
            // The reference corrects two settings that early checkpoints were saved without; its XL pipeline does not.
            "stable-diffusion" => scheduler.with_stable_diffusion_fixes(),
            _ => scheduler.for_sdxl(),
        })
    }

    /// Whether the UNet reads what the text encoders give.
    fn check_width(&self, opened: &Opened<'_>, width: usize) -> Result<()> {
        let wanted = self.unet.text_width();
        if width == wanted {
            return Ok(());
        }
        Err(Error::UnsupportedModel {
            model: opened.describe("unet/config.json"),
            reason: format!("`cross_attention_dim` is {wanted}, but the text encoders give {width}"),
        })
    }

    /// The work on one picture with guidance.
    fn usual_work(&self, options: &LoadOptions) -> Work {
        let (width, height) = self.default_size();
        let (width, height) = (options.width.unwrap_or(width), options.height.unwrap_or(height));
        Work { width, height, batch: 2, control: ControlWork::default() }
    }
}

pub(super) fn estimate_memory(source: &ModelSource, options: &LoadOptions) -> Result<MemoryEstimate> {
    let described = Described::read(&Opened { source, options })?;
    let Described { unet, vae, budget, .. } = &described;
    Ok(budget.estimate(unet, vae, described.usual_work(options)))
}

pub(super) fn describe(source: &ModelSource, options: &LoadOptions) -> Result<PipelineInfo> {
    let opened = Opened { source, options };
    let described = Described::read(&opened)?;
    let scheduler = described.scheduler(&opened)?;
    let text = TextInfo::read(&opened)?;
    described.check_width(&opened, text.width())?;
    let mut info = info(options, &described, &text, &scheduler)?;
    info.notes.extend(text.notes);
    Ok(info)
}

pub(super) fn load(source: &ModelSource, options: &LoadOptions) -> Result<Parts> {
    let opened = Opened { source, options };
    let described = Described::read(&opened)?;
    let work = described.usual_work(options);
    described.budget.check_model(&described.unet, &described.vae, work, &opened.name())?;

    let scheduler = described.scheduler(&opened)?;
    let (text, notes) = TextEncoders::load(&opened, described.index.force_zeros_for_empty_prompt)?;
    described.check_width(&opened, text.info().width())?;
    let mut info = info(options, &described, &text.info(), &scheduler)?;
    info.notes.extend(notes);
    let Described { unet, vae, budget, .. } = described;
    let unet = Unet2DConditionModel::load(
        &opened.weights("unet", DIFFUSION_STEM)?,
        unet,
        &opened.describe("unet/config.json"),
    )?;
    let preview_vae = match &options.preview_vae {
        Some(path) => Some(preview_vae(path, &vae, options)?),
        None => None,
    };
    let vae_dtype = vae_dtype(options.dtype, info.family, &vae);
    let vae = AutoencoderKl::load(
        &opened.weights("vae", DIFFUSION_STEM)?.with_dtype(vae_dtype),
        vae,
        &opened.describe("vae/config.json"),
    )?;
    let (device, dtype) = (options.device.clone(), options.dtype);
    let (text, unet, vae) = (Arc::new(text), Arc::new(unet), Arc::new(vae));
    let preview_vae = preview_vae.map(Arc::new);
    let upscaler = match &options.upscaler {
        Some(path) => Some(Arc::new(UpscaleNetwork::open(path, &device, dtype)?)),
        None => None,
    };
    let nets = Arc::default();
    Ok(Parts { text, unet, vae, preview_vae, upscaler, scheduler, info, budget, device, dtype, nets })
}

/// Opens the tiny autoencoder for previews, if it reads the latents of this VAE.
fn preview_vae(path: &Path, vae: &VaeConfig, options: &LoadOptions) -> Result<AutoencoderTiny> {
    let tiny = AutoencoderTiny::open(path, &options.device, options.dtype)?;
    let (own, found) =
        ((vae.latent_channels, vae.scale_factor()), (tiny.latent_channels(), tiny.scale_factor()));
    match own == found {
        true => Ok(tiny),
        false => Err(Error::UnsupportedModel {
            model: path.display().to_string(),
            reason: format!(
                "it reads latents of {} channels and {} pixels, but the model's have {} and {}",
                found.0, found.1, own.0, own.1
            ),
        }),
    }
}

fn info(
    options: &LoadOptions,
    described: &Described,
    text: &TextInfo,
    scheduler: &SchedulerConfig,
) -> Result<PipelineInfo> {
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
        inpainting: described.unet.in_channels != described.vae.latent_channels,
        guidance_embedding,
        device: device_name(&options.device),
        dtype: dtype_name(options.dtype),
        size_multiple: described.vae.scale_factor().max(MIN_SIZE_MULTIPLE),
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
        preview_vae: options.preview_vae.is_some(),
        upscaler: options.upscaler.is_some(),
        notes,
    })
}

/// In f16 the VAE of SDXL leaves the range of its numbers and draws black, unless it was trained not to: then its
/// configuration says so. Reference: `StableDiffusionXLPipeline.upcast_vae`.
fn vae_dtype(dtype: DType, family: &str, vae: &VaeConfig) -> DType {
    match dtype {
        DType::F16 if family == "stable-diffusion-xl" && vae.force_upcast => DType::F32,
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
