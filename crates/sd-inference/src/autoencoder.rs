//! What takes pictures to latents and back: the model's VAE, or a tiny autoencoder in its place.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use sd_models::taesd::AutoencoderTiny;
use sd_models::vae::{AutoencoderKl, Canvas, LatentDistribution, VaeConfig};

use crate::rng::{BatchNoise, NoiseSource};
use crate::{Error, Result};

/// An autoencoder of pictures. Latents are those that the diffusion knows.
pub(crate) enum Autoencoder {
    Kl(Box<AutoencoderKl>),
    /// With the configuration of the VAE whose latents it reads.
    Tiny {
        tiny: Arc<AutoencoderTiny>,
        config: Box<VaeConfig>,
    },
}

/// What an encoder makes of a picture `(1, 3, height, width)`.
pub(crate) enum Encoded<'a> {
    Distribution(LatentDistribution, &'a AutoencoderKl),
    /// Nothing is left to chance.
    Latents(Tensor),
}

/// What the sides of pictures must be multiples of. Latents stand for at least 8 pixels a side, as in the reference's
/// check.
pub(crate) fn size_multiple(config: &VaeConfig) -> usize {
    config.scale_factor().max(8)
}

impl Autoencoder {
    /// The configuration of the VAE that the diffusion was trained with.
    pub(crate) fn config(&self) -> &VaeConfig {
        match self {
            Self::Kl(vae) => vae.config(),
            Self::Tiny { config, .. } => config,
        }
    }

    /// The tiny autoencoder, if it is one.
    pub(crate) fn tiny(&self) -> Option<&Arc<AutoencoderTiny>> {
        match self {
            Self::Kl(_) => None,
            Self::Tiny { tiny, .. } => Some(tiny),
        }
    }

    /// Whether it can encode; all can decode.
    pub(crate) fn encodes(&self) -> bool {
        match self {
            Self::Kl(_) => true,
            Self::Tiny { tiny, .. } => tiny.has_encoder(),
        }
    }

    /// The picture `(batch, 3, height, width)` of latents, around -1..=1, f32.
    pub(crate) fn decode(&self, latents: &Tensor, canvas: Canvas) -> Result<Tensor> {
        Ok(match self {
            Self::Kl(vae) => vae.decode_with(&vae.unscale(latents)?, canvas)?,
            Self::Tiny { tiny, .. } => tiny.decode_with(latents, canvas.seamless)?,
        })
    }

    /// Encodes a picture `(1, 3, height, width)` in -1..=1.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] where it cannot encode; device errors.
    pub(crate) fn encode(&self, pixels: &Tensor, canvas: Canvas) -> Result<Encoded<'_>> {
        self.check_encodes()?;
        Ok(match self {
            Self::Kl(vae) => Encoded::Distribution(vae.encode_with(pixels, canvas)?, vae),
            Self::Tiny { tiny, .. } => Encoded::Latents(tiny.encode_with(pixels, canvas.seamless)?),
        })
    }

    /// # Errors
    /// [`Error::InvalidRequest`] where it cannot encode.
    pub(crate) fn check_encodes(&self) -> Result<()> {
        match self.encodes() {
            true => Ok(()),
            false => Err(Error::InvalidRequest {
                field: "vae",
                value: "a tiny autoencoder that only decodes".into(),
                limit: "one that encodes too where a picture is begun with".into(),
            }),
        }
    }

    /// The noise that [`Encoded::sample`] takes for latents of this shape. None is drawn where none is needed, as in the
    /// reference.
    pub(crate) fn draw(
        &self,
        noise: &mut BatchNoise,
        shape: &[usize],
        device: &Device,
    ) -> Result<Option<Tensor>> {
        match self {
            Self::Kl(_) => Ok(Some(noise.randn(shape, device)?)),
            Self::Tiny { .. } => Ok(None),
        }
    }
}

impl Encoded<'_> {
    /// The latents in the middle of the distribution.
    pub(crate) fn mean(&self) -> Result<Tensor> {
        match self {
            Self::Distribution(distribution, vae) => Ok(vae.scale(&distribution.mean)?),
            Self::Latents(latents) => Ok(latents.clone()),
        }
    }

    /// One sample for each image of `shape`, by the noise that [`Autoencoder::draw`] drew.
    pub(crate) fn sample(&self, noise: Option<&Tensor>, shape: &[usize]) -> Result<Tensor> {
        match (self, noise) {
            (Self::Distribution(distribution, vae), Some(noise)) => {
                Ok(vae.scale(&distribution.sample(noise)?)?)
            }
            _ => Ok(self.mean()?.broadcast_as(shape)?.contiguous()?),
        }
    }
}
