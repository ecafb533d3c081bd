//! The levels of a UNet: residual blocks, transformers and a change of resolution.

use super::config::{Level, UnetConfig};
use super::resnet::{ResnetBlock, ResnetConfig};
use super::transformer::SpatialTransformer;
use crate::nn::{Conv2d, ConvConfig, ConvInputs, FeatureMap, Padding, Sequence};
use crate::{Result, Weights};

/// What every block is conditioned on.
#[derive(Clone, Copy)]
pub(crate) struct Condition<'a> {
    /// SiLU of the time embedding, `(batch, 1, time_dim)`.
    pub time: &'a Sequence,
    /// Text states `(batch, tokens, cross_dim)`.
    pub text: &'a Sequence,
}

/// A residual block and, in levels with attention, the transformer after it.
#[derive(Debug)]
struct Layer {
    resnet: ResnetBlock,
    transformer: Option<SpatialTransformer>,
}

impl Layer {
    fn load(
        weights: &Weights,
        index: usize,
        in_channels: usize,
        level: Level,
        attention: bool,
        config: &UnetConfig,
    ) -> Result<Self> {
        let groups = config.norm_num_groups;
        Ok(Self {
            resnet: ResnetBlock::load(
                &weights.child(format!("resnets.{index}")),
                resnet_config(in_channels, level.channels, config),
            )?,
            transformer: match attention {
                true => Some(SpatialTransformer::load(
                    &weights.child(format!("attentions.{index}")),
                    level,
                    groups,
                    config.use_linear_projection,
                )?),
                false => None,
            },
        })
    }

    fn forward(&self, input: &FeatureMap, condition: Condition<'_>) -> Result<FeatureMap> {
        let output = self.resnet.forward(input, Some(condition.time))?;
        match &self.transformer {
            Some(transformer) => transformer.forward(&output, condition.text),
            None => Ok(output),
        }
    }
}

fn resnet_config(in_channels: usize, out_channels: usize, config: &UnetConfig) -> ResnetConfig {
    ResnetConfig {
        in_channels,
        out_channels,
        time_dim: Some(4 * config.block_out_channels[0]),
        groups: config.norm_num_groups,
        eps: config.norm_eps,
    }
}

/// A level on the way down.
#[derive(Debug)]
pub(crate) struct DownBlock {
    layers: Vec<Layer>,
    downsample: Option<Conv2d>,
}

impl DownBlock {
    pub(crate) fn load(weights: &Weights, index: usize, config: &UnetConfig) -> Result<Self> {
        let level = config.level(index);
        let attention = config.down_block_types[index].starts_with("CrossAttn");
        let before = config.block_out_channels[index.saturating_sub(1)];
        let layers = (0..level.layers)
            .map(|i| {
                let in_channels = if i == 0 { before } else { level.channels };
                Layer::load(weights, i, in_channels, level, attention, config)
            })
            .collect::<Result<_>>()?;
        let last = index + 1 == config.block_out_channels.len();
        let downsample = match last {
            true => None,
            false => Some(Conv2d::load(
                &weights.child("downsamplers.0.conv"),
                level.channels,
                level.channels,
                ConvConfig { kernel: 3, stride: 2, padding: Padding::Symmetric(config.downsample_padding) },
            )?),
        };
        Ok(Self { layers, downsample })
    }

    /// Pushes every state that the way up will need onto `skips`.
    pub(crate) fn forward(
        &self,
        input: FeatureMap,
        condition: Condition<'_>,
        skips: &mut Vec<FeatureMap>,
    ) -> Result<FeatureMap> {
        let mut state = input;
        for layer in &self.layers {
            state = layer.forward(&state, condition)?;
            skips.push(state.clone());
        }
        if let Some(downsample) = &self.downsample {
            state = downsample.forward(&state)?;
            skips.push(state.clone());
        }
        Ok(state)
    }
}

/// The coarsest level between the two ways: residual block, transformer, residual block.
#[derive(Debug)]
pub(crate) struct MidBlock {
    first: Layer,
    second: ResnetBlock,
}

impl MidBlock {
    pub(crate) fn load(weights: &Weights, config: &UnetConfig) -> Result<Self> {
        let level = config.level(config.block_out_channels.len() - 1);
        Ok(Self {
            first: Layer::load(weights, 0, level.channels, level, true, config)?,
            second: ResnetBlock::load(
                &weights.child("resnets.1"),
                resnet_config(level.channels, level.channels, config),
            )?,
        })
    }

    pub(crate) fn forward(&self, input: &FeatureMap, condition: Condition<'_>) -> Result<FeatureMap> {
        let state = self.first.forward(input, condition)?;
        self.second.forward(&state, Some(condition.time))
    }
}

/// A level on the way up; each layer also reads a state of the way down.
#[derive(Debug)]
pub(super) struct UpBlock {
    layers: Vec<Layer>,
    upsample: Option<Conv2d>,
}

impl UpBlock {
    /// `index` counts from the coarsest level.
    pub(super) fn load(weights: &Weights, index: usize, config: &UnetConfig) -> Result<Self> {
        let levels = config.block_out_channels.len();
        let own = levels - 1 - index;
        let level = config.level(own);
        let attention = config.up_block_types[index].starts_with("CrossAttn");
        let below = config.block_out_channels[(own + 1).min(levels - 1)];
        let above = config.block_out_channels[own.saturating_sub(1)];
        let layers = level.layers + 1;
        let layers = (0..layers)
            .map(|i| {
                let input = if i == 0 { below } else { level.channels };
                let skip = if i + 1 == layers { above } else { level.channels };
                Layer::load(weights, i, input + skip, level, attention, config)
            })
            .collect::<Result<_>>()?;
        let upsample = match own == 0 {
            true => None,
            false => Some(Conv2d::load(
                &weights.child("upsamplers.0.conv"),
                level.channels,
                level.channels,
                ConvConfig::SAME_3X3,
            )?),
        };
        Ok(Self { layers, upsample })
    }

    /// Takes its states off `skips` and leaves at the size of the next one there.
    pub(super) fn forward(
        &self,
        input: FeatureMap,
        condition: Condition<'_>,
        skips: &mut Vec<FeatureMap>,
    ) -> Result<FeatureMap> {
        let mut state = input;
        for layer in &self.layers {
            let joined = match skips.pop() {
                Some(skip) => state.concat_channels(&skip)?,
                None => state,
            };
            state = layer.forward(&joined, condition)?;
        }
        match (&self.upsample, skips.last()) {
            (Some(upsample), Some(skip)) => {
                let (_, _, height, width) = skip.dims();
                upsample.forward_with(
                    &state,
                    ConvInputs { upsample_to: Some((height, width)), ..ConvInputs::default() },
                )
            }
            _ => Ok(state),
        }
    }
}
