//! The middle of encoder and decoder, and the sizes of their residual blocks.

use super::VaeConfig;
use crate::nn::{Attention, AttentionConfig, FeatureMap, GroupNorm, Mask};
use crate::unet::{ResnetBlock, ResnetConfig};
use crate::{Result, Weights};

/// Epsilon of every group norm of the VAE; fixed in the reference.
pub(super) const EPS: f64 = 1e-6;

pub(super) fn resnet(
    weights: &Weights,
    in_channels: usize,
    out_channels: usize,
    config: &VaeConfig,
) -> Result<ResnetBlock> {
    let groups = config.norm_num_groups;
    ResnetBlock::load(weights, ResnetConfig { in_channels, out_channels, time_dim: None, groups, eps: EPS })
}

/// Residual block, attention with one head over all pixels, residual block.
#[derive(Debug)]
pub(super) struct MidBlock {
    first: ResnetBlock,
    attention: Option<PixelAttention>,
    second: ResnetBlock,
}

impl MidBlock {
    pub(super) fn load(weights: &Weights, channels: usize, config: &VaeConfig) -> Result<Self> {
        Ok(Self {
            first: resnet(&weights.child("resnets.0"), channels, channels, config)?,
            attention: match config.mid_block_add_attention {
                true => Some(PixelAttention::load(&weights.child("attentions.0"), channels, config)?),
                false => None,
            },
            second: resnet(&weights.child("resnets.1"), channels, channels, config)?,
        })
    }

    pub(super) fn forward(&self, input: &FeatureMap) -> Result<FeatureMap> {
        let mut state = self.first.forward(input, None)?;
        if let Some(attention) = &self.attention {
            state = attention.forward(&state)?;
        }
        self.second.forward(&state, None)
    }
}

#[derive(Debug)]
struct PixelAttention {
    group_norm: GroupNorm,
    attention: Attention,
}

impl PixelAttention {
    fn load(weights: &Weights, channels: usize, config: &VaeConfig) -> Result<Self> {
        // Folders saved before diffusers 0.15 have the second set of names.
        let old = !weights.contains("to_q.weight");
        let names = match old {
            true => ["query", "key", "value", "proj_attn"],
            false => ["to_q", "to_k", "to_v", "to_out.0"],
        };
        let attention = AttentionConfig {
            width: channels,
            context_width: channels,
            heads: 1,
            bias: true,
            mask: Mask::None,
        };
        Ok(Self {
            group_norm: GroupNorm::load(&weights.child("group_norm"), channels, config.norm_num_groups, EPS)?,
            attention: Attention::load(names.map(|name| weights.child(name)), attention)?,
        })
    }

    fn forward(&self, input: &FeatureMap) -> Result<FeatureMap> {
        let tokens = self.group_norm.forward(input)?.to_tokens()?;
        input.with_tokens(self.attention.forward(&tokens, &tokens, &input.to_tokens()?)?)
    }
}
