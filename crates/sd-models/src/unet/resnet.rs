//! The residual block that UNet and VAE share; reference `diffusers.models.resnet.ResnetBlock2D`.

use crate::nn::{Conv2d, ConvConfig, ConvInputs, FeatureMap, GroupNorm, Linear, Sequence};
use crate::{Result, Weights};

/// Norm, SiLU, convolution, twice, around a shortcut; the time embedding enters between the two.
#[derive(Debug)]
pub(crate) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

/// The sizes that a residual block is loaded with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResnetConfig {
    pub in_channels: usize,
    pub out_channels: usize,
    /// Width of the time embedding; `None` in the VAE.
    pub time_dim: Option<usize>,
    pub groups: usize,
    pub eps: f64,
}

impl ResnetBlock {
    pub(crate) fn load(weights: &Weights, config: ResnetConfig) -> Result<Self> {
        let ResnetConfig { in_channels, out_channels, time_dim, groups, eps } = config;
        let same = ConvConfig::SAME_3X3;
        Ok(Self {
            norm1: GroupNorm::load(&weights.child("norm1"), in_channels, groups, eps)?,
            conv1: Conv2d::load(&weights.child("conv1"), in_channels, out_channels, same)?,
            time_emb_proj: match time_dim {
                Some(dim) => Some(Linear::load(&weights.child("time_emb_proj"), dim, out_channels)?),
                None => None,
            },
            norm2: GroupNorm::load(&weights.child("norm2"), out_channels, groups, eps)?,
            conv2: Conv2d::load(&weights.child("conv2"), out_channels, out_channels, same)?,
            shortcut: match in_channels == out_channels {
                true => None,
                false => Some(Conv2d::load(
                    &weights.child("conv_shortcut"),
                    in_channels,
                    out_channels,
                    ConvConfig::POINTWISE,
                )?),
            },
        })
    }

    /// `activated_time` is the SiLU of the time embedding, `(batch, 1, time_dim)`.
    pub(crate) fn forward(
        &self,
        input: &FeatureMap,
        activated_time: Option<&Sequence>,
    ) -> Result<FeatureMap> {
        let per_channel = match (&self.time_emb_proj, activated_time) {
            (Some(projection), Some(time)) => Some(projection.forward(time)?),
            _ => None,
        };
        let hidden = self.conv1.forward_with(
            &self.norm1.forward_silu(input)?,
            ConvInputs { per_channel: per_channel.as_ref(), ..ConvInputs::default() },
        )?;
        let shortcut = match &self.shortcut {
            Some(conv) => Some(conv.forward(input)?),
            None => None,
        };
        self.conv2.forward_with(
            &self.norm2.forward_silu(&hidden)?,
            ConvInputs { residual: Some(shortcut.as_ref().unwrap_or(input)), ..ConvInputs::default() },
        )
    }
}
