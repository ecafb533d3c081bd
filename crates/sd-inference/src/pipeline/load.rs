//! From a folder of files to a pipeline.

use candle_core::{DType, Device};
use sd_models::unet::{Unet2DConditionModel, UnetConfig};
use sd_models::vae::{AutoencoderKl, VaeConfig};
use sd_models::{ModelFiles, Weights};
use serde::Deserialize;

use super::random::RandomModel;
use super::text::TextEncoders;
use super::{ModelDefaults, Parts, PipelineInfo};
use crate::schedulers::SchedulerConfig;
use crate::{Error, Result};

/// The name of the weight files of UNet and VAE.
const DIFFUSION_STEM: &str = "diffusion_pytorch_model";
/// Pictures are cut into latents of at least this many pixels a side, as in the reference's check.
const MIN_SIZE_MULTIPLE: usize = 8;

/// Where a pipeline comes from.
#[derive(Debug, Clone)]
pub enum ModelSource {
    /// A model in the diffusers layout.
    Files(ModelFiles),
    /// A full-size model of a known family with random weights, for measuring.
    Random(RandomModel),
}

impl ModelSource {
    /// The model folder at `path`.
    ///
    /// # Errors
    /// As [`ModelFiles::folder`].
    pub fn folder(path: impl Into<std::path::PathBuf>) -> Result<Self> {
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
}

impl Default for LoadOptions {
    /// The CPU in f32, which is the reference's precision.
    fn default() -> Self {
        Self { device: Device::Cpu, dtype: DType::F32 }
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
        let LoadOptions { device, dtype } = self.options;
        Ok(match self.source {
            ModelSource::Files(files) => Weights::open(files, folder, stem, device, *dtype)?,
            ModelSource::Random(_) => Weights::random(seed_of(folder), device, *dtype),
        })
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

    /// What error messages call the file.
    pub(super) fn describe(&self, relative: &str) -> String {
        match self.source {
            ModelSource::Files(files) => files.describe(relative),
            ModelSource::Random(model) => format!("random {}:{relative}", model.name()),
        }
    }
}

pub(super) fn load(source: &ModelSource, options: &LoadOptions) -> Result<Parts> {
    let opened = Opened { source, options };
    if options.device.is_cpu() && !matches!(options.dtype, DType::F32 | DType::BF16) {
        return Err(Error::InvalidRequest {
            field: "dtype",
            value: format!("{:?}", options.dtype).to_lowercase(),
            limit: "f32 or bf16 on the cpu; f16 needs a GPU".into(),
        });
    }
    let index: ModelIndex = opened.json("model_index.json")?;
    let family = match index.class_name.as_str() {
        "StableDiffusionPipeline" => "stable-diffusion",
        "StableDiffusionXLPipeline" => "stable-diffusion-xl",
        other => {
            return Err(Error::UnsupportedModel {
                model: opened.describe("model_index.json"),
                reason: format!(
                    "the pipeline class is `{other}`; StableDiffusionPipeline and StableDiffusionXLPipeline can be run"
                ),
            });
        }
    };
    let unet_config: UnetConfig = opened.json("unet/config.json")?;
    unet_config.check(&opened.describe("unet/config.json"))?;
    let vae_config: VaeConfig = opened.json("vae/config.json")?;
    vae_config.check(&opened.describe("vae/config.json"))?;
    let mut scheduler = SchedulerConfig::from_json(&opened.text("scheduler/scheduler_config.json")?)?;
    if family == "stable-diffusion" {
        // The reference corrects two settings that early checkpoints were saved without; its XL pipeline does not.
        scheduler = scheduler.with_stable_diffusion_fixes();
    }
    if unet_config.in_channels != vae_config.latent_channels {
        return Err(Error::UnsupportedModel {
            model: opened.describe("unet/config.json"),
            reason: format!(
                "`in_channels` is {} but the VAE has {} latent channels; inpainting models cannot be run yet",
                unet_config.in_channels, vae_config.latent_channels
            ),
        });
    }

    let text = TextEncoders::load(&opened, index.force_zeros_for_empty_prompt)?;
    if text.width() != unet_config.text_width() {
        return Err(Error::UnsupportedModel {
            model: opened.describe("unet/config.json"),
            reason: format!(
                "`cross_attention_dim` is {}, but the text encoders give {}",
                unet_config.text_width(),
                text.width()
            ),
        });
    }
    let info = describe(&opened, family, &text, &unet_config, &vae_config, &scheduler)?;
    let unet = Unet2DConditionModel::load(
        &opened.weights("unet", DIFFUSION_STEM)?,
        unet_config,
        &opened.describe("unet/config.json"),
    )?;
    let vae = AutoencoderKl::load(
        &opened.weights("vae", DIFFUSION_STEM)?,
        vae_config,
        &opened.describe("vae/config.json"),
    )?;
    Ok(Parts { text, unet, vae, scheduler, info, device: options.device.clone() })
}

fn describe(
    opened: &Opened<'_>,
    family: &'static str,
    text: &TextEncoders,
    unet: &UnetConfig,
    vae: &VaeConfig,
    scheduler: &SchedulerConfig,
) -> Result<PipelineInfo> {
    let defaults: ModelDefaults = match opened.contains("sd-worker.json") {
        true => opened.json("sd-worker.json")?,
        false => ModelDefaults::default(),
    };
    let native = unet.sample_size.unwrap_or(64).saturating_mul(vae.scale_factor());
    let (default_sampler, note) = scheduler.default_sampler()?;
    Ok(PipelineInfo {
        family,
        device: device_name(&opened.options.device),
        dtype: match opened.options.dtype {
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            _ => "f32",
        },
        size_multiple: vae.scale_factor().max(MIN_SIZE_MULTIPLE),
        max_clip_skip: text.max_clip_skip(),
        default_width: defaults.default_width.unwrap_or(native),
        default_height: defaults.default_height.unwrap_or(native),
        default_steps: defaults.default_steps.unwrap_or(20),
        default_guidance_scale: defaults.default_guidance_scale.unwrap_or(7.5),
        default_schedule: scheduler.default_schedule(default_sampler)?,
        default_sampler,
        notes: note.into_iter().collect(),
    })
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
