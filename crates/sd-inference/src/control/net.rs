//! A loaded ControlNet.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sd_models::controlnet::{ControlNetModel, OpenedControlNet};

use crate::pipeline::Parts;
use crate::{Error, Pipeline, Result};

/// A ControlNet, ready to steer the runs of the pipeline that loaded it. Cheap to clone.
#[derive(Clone)]
pub struct ControlNet(Arc<Loaded>);

struct Loaded {
    model: ControlNetModel,
    /// What error messages call it.
    file: String,
    bytes: u64,
    /// The weights of all nets that the pipeline has loaded and nobody has dropped, in bytes.
    held: Arc<AtomicU64>,
}

impl Pipeline {
    /// Loads a ControlNet for this model, on its device and in its number format.
    ///
    /// `path` is a folder in the diffusers layout (`config.json` and weights) or a single `.safetensors` file with the names
    /// of diffusers or of the first release; a single file must be made of this model's own UNet.
    ///
    /// # Errors
    /// [`Error::Model`] when it is no ControlNet, one that is not implemented, or one for another model;
    /// [`Error::NotEnoughMemory`] before any weight is read when it would not fit; device errors.
    pub fn load_controlnet(&self, path: impl AsRef<Path>) -> Result<ControlNet> {
        let parts = self.parts()?;
        let opened = OpenedControlNet::open(path.as_ref(), &parts.device, parts.dtype)?;
        let config = opened.config(parts.unet.config())?;
        let vae = parts.vae.config();
        config.check_fits(parts.unet.config(), vae.latent_channels, vae.scale_factor(), opened.file())?;
        let (bytes, held) = (opened.loaded_bytes(), Arc::clone(&parts.nets));
        let before = held.load(Ordering::Relaxed);
        parts.budget.check_more(bytes, before, &format!("the ControlNet {}", path.as_ref().display()))?;
        let model = opened.load(config)?;
        held.fetch_add(bytes, Ordering::Relaxed);
        Ok(ControlNet(Arc::new(Loaded { model, file: opened.file().to_owned(), bytes, held })))
    }
}

impl ControlNet {
    pub(super) fn model(&self) -> &ControlNetModel {
        &self.0.model
    }

    /// # Errors
    /// [`Error::InvalidRequest`] when it was loaded by another pipeline.
    pub(super) fn check_owner(&self, parts: &Parts) -> Result<()> {
        match Arc::ptr_eq(&self.0.held, &parts.nets) {
            true => Ok(()),
            false => Err(Error::InvalidRequest {
                field: "controls.net",
                value: self.0.file.clone(),
                limit: "loaded by the pipeline that runs".into(),
            }),
        }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// One net is equal to itself and its clones.
impl PartialEq for ControlNet {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::fmt::Debug for ControlNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ControlNet({})", self.0.file)
    }
}
