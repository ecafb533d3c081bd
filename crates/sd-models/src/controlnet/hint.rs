//! The embedding of the control picture; reference `ControlNetConditioningEmbedding` of
//! `diffusers.models.controlnets.controlnet`.

use super::ControlNetConfig;
use crate::nn::{Conv2d, ConvConfig, FeatureMap, Padding};
use crate::{Result, Weights};

/// Convolutions with SiLU between them that bring a picture to the size of the latents.
#[derive(Debug)]
pub(super) struct HintEmbedding {
    /// All but the last; each is followed by a SiLU.
    convolutions: Vec<Conv2d>,
    conv_out: Conv2d,
}

impl HintEmbedding {
    pub(super) fn load(weights: &Weights, config: &ControlNetConfig) -> Result<Self> {
        let same = ConvConfig::SAME_3X3;
        let halving = ConvConfig { kernel: 3, stride: 2, padding: Padding::Symmetric(1) };
        let channels = &config.conditioning_embedding_out_channels;
        let load =
            |name: &str, inputs, outputs, shape| Conv2d::load(&weights.child(name), inputs, outputs, shape);

        let mut convolutions = vec![load("conv_in", config.conditioning_channels, channels[0], same)?];
        for (index, pair) in channels.windows(2).enumerate() {
            let (own, next) = (pair[0], pair[1]);
            convolutions.push(load(&format!("blocks.{}", 2 * index), own, own, same)?);
            convolutions.push(load(&format!("blocks.{}", 2 * index + 1), own, next, halving)?);
        }
        let last = channels[channels.len() - 1];
        let conv_out = load("conv_out", last, config.unet.block_out_channels[0], same)?;
        Ok(Self { convolutions, conv_out })
    }

    pub(super) fn forward(&self, picture: &FeatureMap) -> Result<FeatureMap> {
        let mut state = picture.clone();
        for convolution in &self.convolutions {
            state = convolution.forward(&state)?.silu()?;
        }
        self.conv_out.forward(&state)
    }
}
