//! Two-dimensional convolution.

use candle_core::Tensor;

use super::FeatureMap;
use crate::{Result, Weights};

/// Where zeros are added around the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// The same number on all four sides.
    Symmetric(usize),
    /// One row below and one column to the right, as the VAE's encoder downsamples.
    RightBottom,
}

/// The shape of a convolution.
#[derive(Debug, Clone, Copy)]
pub struct ConvConfig {
    /// Height and width of the (square) kernel.
    pub kernel: usize,
    /// Step between outputs.
    pub stride: usize,
    /// Zeros around the input.
    pub padding: Padding,
}

impl ConvConfig {
    /// 3x3 that keeps height and width.
    pub const SAME_3X3: Self = Self { kernel: 3, stride: 1, padding: Padding::Symmetric(1) };
    /// 1x1: a linear layer for each pixel.
    pub const POINTWISE: Self = Self { kernel: 1, stride: 1, padding: Padding::Symmetric(0) };
}

/// What is added to a convolution's output while it is still at hand.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConvInputs<'a> {
    /// `(batch, out_channels)`, added to every pixel: the time embedding of a residual block.
    pub per_channel: Option<&'a Tensor>,
    /// A map of the output's shape: the residual.
    pub residual: Option<&'a FeatureMap>,
    /// Resample the input to this `(height, width)` by nearest neighbour first.
    pub upsample_to: Option<(usize, usize)>,
}

/// A convolution with bias.
#[derive(Debug, Clone)]
pub struct Conv2d {
    weight: Tensor,
    bias: Tensor,
    config: ConvConfig,
}

impl Conv2d {
    /// Loads `weight` `(out_channels, in_channels, kernel, kernel)` and `bias` `(out_channels)` of this scope.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn load(
        weights: &Weights,
        in_channels: usize,
        out_channels: usize,
        config: ConvConfig,
    ) -> Result<Self> {
        let shape = [out_channels, in_channels, config.kernel, config.kernel];
        let weight = weights.tensor("weight", &shape)?;
        let bias = weights.tensor("bias", &[out_channels])?.reshape((1, out_channels, 1, 1))?;
        Ok(Self { weight, bias, config })
    }

    /// Convolves `input`.
    ///
    /// # Errors
    /// When the channels do not fit, or on device errors.
    pub fn forward(&self, input: &FeatureMap) -> Result<FeatureMap> {
        self.forward_with(input, ConvInputs::default())
    }

    /// Convolves `input` and adds what `inputs` says.
    ///
    /// # Errors
    /// When the shapes do not fit, or on device errors.
    pub fn forward_with(&self, input: &FeatureMap, inputs: ConvInputs<'_>) -> Result<FeatureMap> {
        let resampled = match inputs.upsample_to {
            Some((height, width)) => Some(input.upsample_nearest(height, width)?),
            None => None,
        };
        let input = resampled.as_ref().unwrap_or(input);
        let (padded, padding) = match self.config.padding {
            Padding::Symmetric(padding) => (None, padding),
            Padding::RightBottom => (Some(input.pad_right_bottom(1)?), 0),
        };
        let input = padded.as_ref().unwrap_or(input);
        let mut output =
            input.raw().conv2d(&self.weight, padding, self.config.stride, 1, 1)?.broadcast_add(&self.bias)?;
        if let Some(per_channel) = inputs.per_channel {
            let (batch, channels) = per_channel.dims2()?;
            output = output.broadcast_add(&per_channel.reshape((batch, channels, 1, 1))?)?;
        }
        if let Some(residual) = inputs.residual {
            output = (output + residual.raw())?;
        }
        Ok(FeatureMap::from_raw(output))
    }
}
