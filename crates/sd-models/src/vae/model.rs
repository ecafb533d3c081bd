//! The whole autoencoder.

use candle_core::{DType, Tensor};

use super::VaeConfig;
use super::decoder::Decoder;
use super::encoder::Encoder;
use super::tiling::Tiles;
use crate::nn::{Conv2d, ConvConfig, FeatureMap, Seamless};
use crate::{Result, Weights};

/// A variational autoencoder for pictures.
#[derive(Debug)]
pub struct AutoencoderKl {
    encoder: Encoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    decoder: Decoder,
    config: VaeConfig,
    dtype: DType,
}

/// How a picture is taken through the autoencoder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Canvas {
    /// Tile by tile, in bounded memory; `None`: all at once.
    pub tiles: Option<Tiles>,
    /// Which edges of the picture meet.
    pub seamless: Seamless,
}

/// A Gaussian for each latent value.
#[derive(Debug, Clone)]
pub struct LatentDistribution {
    /// Means, `(batch, latent_channels, height, width)`, f32.
    pub mean: Tensor,
    /// Natural logarithms of the variances, clamped to -30..=20, of the same shape.
    pub logvar: Tensor,
}

impl LatentDistribution {
    pub(super) fn from_moments(moments: &Tensor) -> Result<Self> {
        let moments = moments.chunk(2, 1)?;
        Ok(Self { mean: moments[0].contiguous()?, logvar: moments[1].clamp(-30f32, 20f32)? })
    }

    /// Samples for standard normal `noise`: of the same shape, or several for the distribution of one picture.
    ///
    /// # Errors
    /// When the shapes differ.
    pub fn sample(&self, noise: &Tensor) -> Result<Tensor> {
        Ok((&self.logvar * 0.5)?.exp()?.broadcast_mul(noise)?.broadcast_add(&self.mean)?)
    }
}

impl AutoencoderKl {
    /// Loads the model. `config_file` names the configuration in error messages.
    ///
    /// # Errors
    /// As [`VaeConfig::check`] and [`Weights::tensor`].
    pub fn load(weights: &Weights, config: VaeConfig, config_file: &str) -> Result<Self> {
        config.check(config_file)?;
        let pointwise = |name: &str, channels: usize| {
            Conv2d::load(&weights.child(name), channels, channels, ConvConfig::POINTWISE)
        };
        Ok(Self {
            encoder: Encoder::load(&weights.child("encoder"), &config)?,
            quant_conv: match config.use_quant_conv {
                true => Some(pointwise("quant_conv", 2 * config.latent_channels)?),
                false => None,
            },
            post_quant_conv: match config.use_post_quant_conv {
                true => Some(pointwise("post_quant_conv", config.latent_channels)?),
                false => None,
            },
            decoder: Decoder::load(&weights.child("decoder"), &config)?,
            dtype: weights.activation_dtype(),
            config,
        })
    }

    /// The configuration it was loaded with.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// The latent distribution of `pixels` `(batch, 3, height, width)` in -1..=1.
    ///
    /// # Errors
    /// When shapes do not fit, or on device errors.
    pub fn encode(&self, pixels: &Tensor) -> Result<LatentDistribution> {
        LatentDistribution::from_moments(&self.moments(pixels, Seamless::default())?)
    }

    /// Means, then logarithms of variances, `(batch, 2 * latent_channels, height, width)`, f32.
    pub(super) fn moments(&self, pixels: &Tensor, seamless: Seamless) -> Result<Tensor> {
        let pixels = FeatureMap::from_nchw(&pixels.to_dtype(self.dtype)?)?.with_seamless(seamless);
        let mut moments = self.encoder.forward(&pixels)?;
        if let Some(conv) = &self.quant_conv {
            moments = conv.forward(&moments)?;
        }
        Ok(moments.to_nchw()?.to_dtype(DType::F32)?)
    }

    /// The picture `(batch, 3, height, width)` of unscaled latents, around -1..=1, f32.
    ///
    /// # Errors
    /// When shapes do not fit, or on device errors.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        self.picture(latents, Seamless::default())
    }

    /// As [`decode`](Self::decode), of a picture whose edges may meet.
    pub(super) fn picture(&self, latents: &Tensor, seamless: Seamless) -> Result<Tensor> {
        let mut state = FeatureMap::from_nchw(&latents.to_dtype(self.dtype)?)?.with_seamless(seamless);
        if let Some(conv) = &self.post_quant_conv {
            state = conv.forward(&state)?;
        }
        Ok(self.decoder.forward(&state)?.to_nchw()?.to_dtype(DType::F32)?)
    }

    /// Latents as the VAE knows them, from latents as the diffusion knows them.
    ///
    /// # Errors
    /// Device errors.
    pub fn unscale(&self, latents: &Tensor) -> Result<Tensor> {
        Ok(((latents / self.config.scaling_factor)? + self.config.shift_factor.unwrap_or(0.0))?)
    }

    /// Latents as the diffusion knows them, from latents as the VAE knows them.
    ///
    /// # Errors
    /// Device errors.
    pub fn scale(&self, latents: &Tensor) -> Result<Tensor> {
        Ok(((latents - self.config.shift_factor.unwrap_or(0.0))? * self.config.scaling_factor)?)
    }
}
