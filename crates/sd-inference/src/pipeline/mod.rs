//! A loaded model, ready to make images.

mod adapt;
mod defaults;
mod info;
mod load;
mod memory;
mod prompt_reader;
mod random;
mod refiner;
mod scheduler_file;
mod text;
mod tiny;
mod tokens;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{DType, Device};
use image::RgbImage;
use sd_models::lora::Lora;
use sd_models::taesd::AutoencoderTiny;
use sd_models::unet::Unet2DConditionModel;

use adapt::AdaptableModel;
pub use adapt::AppliedLora;
pub use defaults::ModelDefaults;
pub use info::PipelineInfo;
pub use load::{LoadOptions, ModelSource};
pub(crate) use memory::{Budget, ControlWork, Work};
pub use memory::{MemoryEstimate, MemoryLimit, VaeTiling};
pub use prompt_reader::PromptReader;
pub use random::RandomModel;
pub(crate) use text::{Reading, TextConditioning, TextEncoders};

use crate::autoencoder::Autoencoder;
use crate::condition::PromptStates;
use crate::generation::Generation;
use crate::schedulers::SchedulerConfig;
use crate::{Error, GenerationRequest, PreviewMethod, Result, UpscaleNetwork, UpscaleOptions, Upscaling};

/// A Stable Diffusion model: text encoders, UNet, VAE and scheduler settings.
///
/// Cheap to clone and shared freely between threads; everything that belongs to one image lives in the
/// [`Generation`] that [`Pipeline::begin`] returns.
#[derive(Clone)]
pub struct Pipeline {
    shared: Arc<Shared>,
}

struct Shared {
    model: AdaptableModel,
    info: PipelineInfo,
    device: Device,
    upscaler: Option<Arc<UpscaleNetwork>>,
    budget: Budget,
    /// As [`Parts::nets`].
    nets: Arc<AtomicU64>,
}

/// What all generations with the same adapters share.
pub(crate) struct Parts {
    pub(crate) text: Arc<TextEncoders>,
    pub(crate) unet: Arc<Unet2DConditionModel>,
    pub(crate) vae: Arc<Autoencoder>,
    /// For previews alone.
    pub(crate) preview_vae: Option<Arc<AutoencoderTiny>>,
    /// For second passes.
    pub(crate) upscaler: Option<Arc<UpscaleNetwork>>,
    /// What may take over late in a run.
    pub(crate) refiner: Option<Arc<Parts>>,
    pub(crate) scheduler: SchedulerConfig,
    pub(crate) info: PipelineInfo,
    pub(crate) budget: Budget,
    pub(crate) device: Device,
    /// The number format of the weights.
    pub(crate) dtype: DType,
    /// The weights of the ControlNets that were loaded for this pipeline, in bytes.
    pub(crate) nets: Arc<AtomicU64>,
}

impl Pipeline {
    /// Loads a model.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) and [`Error::UnsupportedModel`](crate::Error::UnsupportedModel) when the
    /// files are not a model that this crate can run; [`Error::NotEnoughMemory`](crate::Error::NotEnoughMemory) before
    /// anything is read when it would not fit; device errors.
    pub fn load(source: &ModelSource, options: &LoadOptions) -> Result<Self> {
        let parts = load::load(source, options)?;
        let (info, device, upscaler) = (parts.info.clone(), parts.device.clone(), parts.upscaler.clone());
        let (budget, nets) = (parts.budget, Arc::clone(&parts.nets));
        let model = AdaptableModel::new(source.clone(), options.clone(), Arc::new(parts));
        Ok(Self { shared: Arc::new(Shared { model, info, device, upscaler, budget, nets }) })
    }

    /// The memory that the model would take, and one picture with guidance. Reads only headers.
    ///
    /// # Errors
    /// As [`Pipeline::load`], except for device errors and missing memory.
    pub fn estimate_memory(source: &ModelSource, options: &LoadOptions) -> Result<MemoryEstimate> {
        load::estimate_memory(source, options)
    }

    /// What the model is and can do, as [`Pipeline::info`] tells once it is loaded. Reads configurations and headers, no
    /// weights.
    ///
    /// # Errors
    /// As [`Pipeline::load`], as far as that shows without the weights; never for want of memory.
    pub fn describe(source: &ModelSource, options: &LoadOptions) -> Result<PipelineInfo> {
        load::describe(source, options)
    }

    /// Whether memory suffices for a forward pass over `pictures` of `width` x `height` pixels with guidance, beside the
    /// model, and beside previews by the tiny autoencoder where one was loaded for them: for several generations that are
    /// advanced together.
    pub fn has_room(&self, width: usize, height: usize, pictures: usize) -> bool {
        let Ok(parts) = self.parts() else { return false };
        let batch = pictures.saturating_mul(2);
        let work = Work { width, height, batch, control: ControlWork::default(), enlarging: 0, beside: 0 };
        let work = parts.with_previews(work, Some(PreviewMethod::Taesd));
        parts.budget.check_work(parts.unet.config(), parts.vae.config(), work).is_ok()
    }

    /// Encodes the prompts and prepares the noise; the images come out of stepping the result.
    ///
    /// A request whose adapters are not those of the call before first loads the layers that differ, which takes
    /// a part of the time that the model took to load. Generations under way keep theirs.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`](crate::Error::InvalidRequest) names the field that this model cannot do;
    /// [`Error::NotEnoughMemory`](crate::Error::NotEnoughMemory) when a picture of this size would not fit.
    pub fn begin(&self, request: &GenerationRequest) -> Result<Generation> {
        Generation::begin(self.shared.model.with(&request.loras)?, request)
    }

    /// What the UNet is told by the prompts of the request's first image, as [`Pipeline::begin`] encodes them.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`](crate::Error::InvalidRequest) names the field that cannot be encoded.
    pub fn encode_prompt(&self, request: &GenerationRequest) -> Result<PromptStates> {
        PromptStates::new(&*self.shared.model.with(&request.loras)?, request)
    }

    /// What of the model reads prompts. It keeps no weights.
    ///
    /// # Errors
    /// When adapters could not be taken off the model.
    pub fn prompt_reader(&self) -> Result<PromptReader> {
        Ok(self.parts()?.text.reader())
    }

    /// Forgets the texts that were encoded lately; otherwise the same text is not encoded twice.
    pub fn clear_prompt_cache(&self) {
        self.shared.model.clear_prompt_cache();
    }

    /// The model with the adapters that were asked for last.
    pub(crate) fn parts(&self) -> Result<Arc<Parts>> {
        self.shared.model.current()
    }

    /// What this model is and can do.
    pub fn info(&self) -> &PipelineInfo {
        &self.shared.info
    }

    /// The network that was loaded beside it ([`LoadOptions::upscaler`]).
    pub fn upscaler(&self) -> Option<&Arc<UpscaleNetwork>> {
        self.shared.upscaler.as_ref()
    }

    /// Begins to enlarge a picture by that network.
    ///
    /// # Errors
    /// As [`UpscaleNetwork::begin`]; [`Error::InvalidRequest`](crate::Error::InvalidRequest) where no network was loaded;
    /// [`Error::NotEnoughMemory`](crate::Error::NotEnoughMemory) when it would not fit beside the model.
    pub fn begin_upscale(&self, picture: &RgbImage, options: &UpscaleOptions) -> Result<Upscaling> {
        let Some(network) = self.upscaler() else {
            let (value, limit) = ("a network".to_owned(), "none: no network was loaded".to_owned());
            return Err(Error::InvalidRequest { field: "upscaler", value, limit });
        };
        let bytes = network.workspace(picture.dimensions(), options);
        let nets = self.shared.nets.load(Ordering::Relaxed);
        self.shared.budget.check_upscale(bytes, picture.dimensions(), nets)?;
        Arc::clone(network).begin(picture, options)
    }

    /// The device that it computes on.
    pub fn device(&self) -> &Device {
        &self.shared.device
    }

    /// Checks that an adapter was made for a model like this one, without applying it.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) tells what does not fit, and what kind of model would.
    pub fn check_lora(&self, lora: &Lora) -> Result<()> {
        Ok(self.shared.model.targets().fit(lora)?)
    }

    /// The layers that an adapter can change, by their names in diffusers (`unet.mid_block.attentions.0.proj_in`), with
    /// the shapes of their weights.
    pub fn adaptable_layers(&self) -> BTreeMap<String, Vec<usize>> {
        self.shared.model.targets().layers()
    }
}
