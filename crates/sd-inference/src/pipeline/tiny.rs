//! Tiny autoencoders beside or in the place of a model's VAE.

use std::sync::Arc;

use sd_models::taesd::AutoencoderTiny;
use sd_models::vae::VaeConfig;

use super::load::{LoadOptions, ModelSource, Opened};
use super::{Parts, Work};
use crate::{Error, PreviewMethod, Result};

/// The tiny autoencoder for previews, if it reads the latents of this VAE. A model with random weights has a random one,
/// unless another was chosen.
pub(super) fn for_previews(opened: &Opened<'_>, vae: &VaeConfig) -> Result<Option<AutoencoderTiny>> {
    let LoadOptions { device, dtype, .. } = opened.options;
    match (&opened.options.preview_vae, opened.source) {
        (Some(path), _) => {
            let tiny = AutoencoderTiny::open(path, device, *dtype)?;
            fitting(tiny, vae, &path.display().to_string()).map(Some)
        }
        (None, ModelSource::Random(_)) => {
            Ok(Some(AutoencoderTiny::random(vae.latent_channels, device, *dtype)?))
        }
        (None, ModelSource::Files(_)) => Ok(None),
    }
}

/// Whether there will be one.
pub(super) fn is_there(opened: &Opened<'_>) -> bool {
    opened.options.preview_vae.is_some() || matches!(opened.source, ModelSource::Random(_))
}

/// What its weights take, in bytes.
pub(super) fn loaded_bytes(opened: &Opened<'_>) -> Result<u64> {
    let LoadOptions { device, dtype, .. } = opened.options;
    match &opened.options.preview_vae {
        Some(path) => Ok(AutoencoderTiny::loaded_bytes(path, device, *dtype)?),
        None => Ok(0),
    }
}

impl Parts {
    /// The tiny autoencoder that decodes previews of this method, if one does.
    pub(crate) fn tiny_decoder(&self, method: PreviewMethod) -> Option<&Arc<AutoencoderTiny>> {
        match method {
            PreviewMethod::LatentRgb => None,
            PreviewMethod::Taesd => self.preview_vae.as_ref().or(self.vae.tiny()),
            PreviewMethod::Vae => self.vae.tiny(),
        }
    }

    /// Whether it decodes beside the steps. A GPU has one queue of work here, in which previews stand between two steps.
    pub(crate) fn decodes_beside(&self) -> bool {
        self.device.is_cpu()
    }

    /// The work with what decoding previews by this method beside it takes.
    pub(crate) fn with_previews(&self, work: Work, method: Option<PreviewMethod>) -> Work {
        let tiny = method.and_then(|method| self.tiny_decoder(method)).filter(|_| self.decodes_beside());
        let beside = tiny.map_or(0, |_| AutoencoderTiny::decode_workspace(work.height, work.width));
        Work { beside, ..work }
    }
}

/// The tiny autoencoder, if it reads the latents of this VAE.
pub(super) fn fitting(tiny: AutoencoderTiny, vae: &VaeConfig, file: &str) -> Result<AutoencoderTiny> {
    let (own, found) =
        ((vae.latent_channels, vae.scale_factor()), (tiny.latent_channels(), tiny.scale_factor()));
    match own == found {
        true => Ok(tiny),
        false => Err(Error::UnsupportedModel {
            model: file.to_owned(),
            reason: format!(
                "it reads latents of {} channels and {} pixels, but the model's have {} and {}",
                found.0, found.1, own.0, own.1
            ),
        }),
    }
}
