//! Latents to pixels.

use super::VaeConfig;
use super::blocks::{EPS, MidBlock, resnet};
use crate::nn::{Conv2d, ConvConfig, ConvInputs, FeatureMap, GroupNorm};
use crate::unet::ResnetBlock;
use crate::{Result, Weights};

#[derive(Debug)]
pub(super) struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    levels: Vec<(Vec<ResnetBlock>, Option<Conv2d>)>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    pub(super) fn load(weights: &Weights, config: &VaeConfig) -> Result<Self> {
        let channels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let (coarsest, finest) = (channels[0], channels[channels.len() - 1]);
        let levels = (0..channels.len())
            .map(|level| {
                let weights = weights.child(format!("up_blocks.{level}"));
                let before = channels[level.saturating_sub(1)];
                let blocks = (0..=config.layers_per_block)
                    .map(|i| {
                        let in_channels = if i == 0 { before } else { channels[level] };
                        resnet(&weights.child(format!("resnets.{i}")), in_channels, channels[level], config)
                    })
                    .collect::<Result<Vec<_>>>()?;
                let upsample = match level + 1 == channels.len() {
                    true => None,
                    false => Some(Conv2d::load(
                        &weights.child("upsamplers.0.conv"),
                        channels[level],
                        channels[level],
                        ConvConfig::SAME_3X3,
                    )?),
                };
                Ok((blocks, upsample))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            conv_in: Conv2d::load(
                &weights.child("conv_in"),
                config.latent_channels,
                coarsest,
                ConvConfig::SAME_3X3,
            )?,
            mid_block: MidBlock::load(&weights.child("mid_block"), coarsest, config)?,
            levels,
            conv_norm_out: GroupNorm::load(
                &weights.child("conv_norm_out"),
                finest,
                config.norm_num_groups,
                EPS,
            )?,
            conv_out: Conv2d::load(
                &weights.child("conv_out"),
                finest,
                config.out_channels,
                ConvConfig::SAME_3X3,
            )?,
        })
    }

    pub(super) fn forward(&self, latents: &FeatureMap) -> Result<FeatureMap> {
        let mut state = self.mid_block.forward(&self.conv_in.forward(latents)?)?;
        for (blocks, upsample) in &self.levels {
            for block in blocks {
                state = block.forward(&state, None)?;
            }
            if let Some(upsample) = upsample {
                let (_, _, height, width) = state.dims();
                let doubled =
                    ConvInputs { upsample_to: Some((2 * height, 2 * width)), ..ConvInputs::default() };
                state = upsample.forward_with(&state, doubled)?;
            }
        }
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&state)?)
    }
}
