//! Pixels to the moments of a latent distribution.

use super::VaeConfig;
use super::blocks::{EPS, MidBlock, resnet};
use crate::nn::{Conv2d, ConvConfig, FeatureMap, GroupNorm, Padding};
use crate::unet::ResnetBlock;
use crate::{Result, Weights};

#[derive(Debug)]
pub(super) struct Encoder {
    conv_in: Conv2d,
    levels: Vec<(Vec<ResnetBlock>, Option<Conv2d>)>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    pub(super) fn load(weights: &Weights, config: &VaeConfig) -> Result<Self> {
        let channels = &config.block_out_channels;
        let last = channels[channels.len() - 1];
        let levels = (0..channels.len())
            .map(|level| {
                let weights = weights.child(format!("down_blocks.{level}"));
                let before = channels[level.saturating_sub(1)];
                let blocks = (0..config.layers_per_block)
                    .map(|i| {
                        let in_channels = if i == 0 { before } else { channels[level] };
                        resnet(&weights.child(format!("resnets.{i}")), in_channels, channels[level], config)
                    })
                    .collect::<Result<Vec<_>>>()?;
                let downsample = match level + 1 == channels.len() {
                    true => None,
                    false => Some(Conv2d::load(
                        &weights.child("downsamplers.0.conv"),
                        channels[level],
                        channels[level],
                        ConvConfig { kernel: 3, stride: 2, padding: Padding::RightBottom },
                    )?),
                };
                Ok((blocks, downsample))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            conv_in: Conv2d::load(
                &weights.child("conv_in"),
                config.in_channels,
                channels[0],
                ConvConfig::SAME_3X3,
            )?,
            levels,
            mid_block: MidBlock::load(&weights.child("mid_block"), last, config)?,
            conv_norm_out: GroupNorm::load(
                &weights.child("conv_norm_out"),
                last,
                config.norm_num_groups,
                EPS,
            )?,
            conv_out: Conv2d::load(
                &weights.child("conv_out"),
                last,
                2 * config.latent_channels,
                ConvConfig::SAME_3X3,
            )?,
        })
    }

    pub(super) fn forward(&self, pixels: &FeatureMap) -> Result<FeatureMap> {
        let mut state = self.conv_in.forward(pixels)?;
        for (blocks, downsample) in &self.levels {
            for block in blocks {
                state = block.forward(&state, None)?;
            }
            if let Some(downsample) = downsample {
                state = downsample.forward(&state)?;
            }
        }
        state = self.mid_block.forward(&state)?;
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&state)?)
    }
}
