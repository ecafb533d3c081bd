//! The model with a set of adapters, and without again.
//!
//! Adapters are added to the weights while layers are loaded. To change the set, the layers that it changes are loaded
//! again from the model's files and all others are shared; a generation keeps the parts that it began with.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sd_models::lora::{Lora, Patches, Targets};
use sd_models::unet::Unet2DConditionModel;

use super::load::{self, DIFFUSION_STEM, Opened};
use super::{LoadOptions, ModelSource, Parts};
use crate::{Error, Result};

/// An adapter in a stack.
#[derive(Debug, Clone, PartialEq)]
pub struct AppliedLora {
    /// The adapter.
    pub lora: Lora,
    /// Its weight: 1 as it was trained, 0 not at all, less than 0 the other way. Finite.
    pub scale: f64,
}

/// A model whose adapters change from one generation to the next.
pub(super) struct AdaptableModel {
    source: ModelSource,
    options: LoadOptions,
    targets: Targets,
    /// The weights of the pipeline's ControlNets, which it keeps whatever becomes of the model.
    nets: Arc<AtomicU64>,
    current: Mutex<Option<Current>>,
}

/// The set that was asked for last, and the model with it.
struct Current {
    set: Vec<AppliedLora>,
    parts: Arc<Parts>,
}

impl AdaptableModel {
    pub(super) fn new(source: ModelSource, options: LoadOptions, parts: Arc<Parts>) -> Self {
        let targets = Targets::new(&parts.unet, parts.text.models());
        let nets = Arc::clone(&parts.nets);
        let current = Mutex::new(Some(Current { set: Vec::new(), parts }));
        Self { source, options, targets, nets, current }
    }

    pub(super) fn targets(&self) -> &Targets {
        &self.targets
    }

    /// The model with exactly these adapters. Costs nothing for the set of the last call.
    pub(super) fn with(&self, loras: &[AppliedLora]) -> Result<Arc<Parts>> {
        let set = counting(loras)?;
        let mut current = self.lock();
        if let Some(current) = current.as_ref().filter(|current| current.set == set) {
            return Ok(Arc::clone(&current.parts));
        }
        let patches = self.targets.patches(set.iter().map(|applied| (&applied.lora, applied.scale)))?;
        if let Some(current) = current.as_ref() {
            self.check_memory(&current.parts, &patches)?;
        }
        let before = match current.take() {
            Some(current) => current.parts,
            None => Arc::new(self.load()?),
        };
        let parts = Arc::new(self.change(before, patches)?);
        *current = Some(Current { set, parts: Arc::clone(&parts) });
        Ok(parts)
    }

    /// The model with the adapters of the last call.
    pub(super) fn current(&self) -> Result<Arc<Parts>> {
        let mut current = self.lock();
        if let Some(current) = current.as_ref() {
            return Ok(Arc::clone(&current.parts));
        }
        let parts = Arc::new(self.load()?);
        *current = Some(Current { set: Vec::new(), parts: Arc::clone(&parts) });
        Ok(parts)
    }

    /// Forgets the texts that were encoded lately.
    pub(super) fn clear_prompt_cache(&self) {
        if let Some(current) = self.lock().as_ref() {
            current.parts.text.clear_cache();
            current.parts.refiner.iter().for_each(|refiner| refiner.text.clear_cache());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Current>> {
        // Where a change broke off, by a panic too, nothing is current.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self) -> Result<Parts> {
        Ok(Parts { nets: Arc::clone(&self.nets), ..load::load(&self.source, &self.options)? })
    }

    /// While a generation still has the model as it was, what changes is there twice.
    fn check_memory(&self, parts: &Arc<Parts>, patches: &Patches) -> Result<()> {
        if Arc::strong_count(parts) == 1 {
            return Ok(());
        }
        let values = parts.unet.layers().changed_values(&patches.unet);
        let values = values.saturating_add(parts.text.changed_values(&patches.text));
        let bytes = values.saturating_mul(self.options.dtype.size_in_bytes() as u64);
        let nets = self.nets.load(Ordering::Relaxed);
        parts.budget.check_more(bytes, nets, "a model with other loras than a generation under way")
    }

    /// What nobody else has of the model as it was is freed before what replaces it is loaded.
    fn change(&self, before: Arc<Parts>, patches: Patches) -> Result<Parts> {
        let opened = Opened { source: &self.source, options: &self.options };
        let text = match before.text.change(&patches.text) {
            None => Next::Same(Arc::clone(&before.text)),
            Some(change) => Next::Load(change),
        };
        let unet = match before.unet.layers().have(&patches.unet) {
            true => Next::Same(Arc::clone(&before.unet)),
            false => Next::Load((before.unet.config().clone(), before.unet.layers().with(patches.unet))),
        };
        let (vae, preview_vae) = (Arc::clone(&before.vae), before.preview_vae.clone());
        let (upscaler, refiner) = (before.upscaler.clone(), before.refiner.clone());
        let (scheduler, info) = (before.scheduler.clone(), before.info.clone());
        let (budget, device, dtype) = (before.budget, before.device.clone(), before.dtype);
        drop(before);

        let text = match text {
            Next::Same(text) => text,
            Next::Load(change) => Arc::new(change.load(&opened)?),
        };
        let unet = match unet {
            Next::Same(unet) => unet,
            Next::Load((config, layers)) => {
                let weights = opened.weights("unet", DIFFUSION_STEM)?.with_layers(layers)?;
                let file = opened.describe("unet/config.json");
                Arc::new(Unet2DConditionModel::load(&weights, config, &file)?)
            }
        };
        let nets = Arc::clone(&self.nets);
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
}

/// A part of the model with the next set of adapters.
enum Next<T, C> {
    /// They leave it as it is.
    Same(Arc<T>),
    /// What it is loaded again from.
    Load(C),
}

/// The adapters that make a difference.
fn counting(loras: &[AppliedLora]) -> Result<Vec<AppliedLora>> {
    match loras.iter().find(|applied| !applied.scale.is_finite()) {
        Some(applied) => Err(Error::InvalidRequest {
            field: "loras",
            value: format!("`{}` at {}", applied.lora.name(), applied.scale),
            limit: "at finite scales".into(),
        }),
        None => Ok(loras.iter().filter(|applied| applied.scale != 0.0).cloned().collect()),
    }
}
