//! Normalisations.

use candle_core::{DType, Tensor};

use super::FeatureMap;
use crate::{Result, Weights};

/// Group normalisation over channels (Wu and He, 2018), with the SiLU that follows it in residual blocks.
#[derive(Debug, Clone)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// Loads `weight` and `bias` `(channels)` of this scope.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn load(weights: &Weights, channels: usize, groups: usize, eps: f64) -> Result<Self> {
        let weight = weights.with_dtype(DType::F32).tensor("weight", &[channels])?;
        let bias = weights.with_dtype(DType::F32).tensor("bias", &[channels])?;
        Ok(Self {
            weight: weight.reshape((1, channels, 1, 1))?,
            bias: bias.reshape((1, channels, 1, 1))?,
            groups,
            eps,
        })
    }

    /// Normalises each group of channels of each picture to mean 0 and variance 1, then scales and shifts.
    ///
    /// # Errors
    /// When the channels do not fit, or on device errors.
    pub fn forward(&self, input: &FeatureMap) -> Result<FeatureMap> {
        Ok(FeatureMap::from_raw(self.normalised(input)?.to_dtype(input.dtype())?))
    }

    /// [`GroupNorm::forward`], then SiLU.
    ///
    /// # Errors
    /// As [`GroupNorm::forward`].
    pub fn forward_silu(&self, input: &FeatureMap) -> Result<FeatureMap> {
        Ok(FeatureMap::from_raw(self.normalised(input)?.silu()?.to_dtype(input.dtype())?))
    }

    fn normalised(&self, input: &FeatureMap) -> Result<Tensor> {
        let (batch, channels, height, width) = input.dims();
        let grouped = input.raw().to_dtype(DType::F32)?.reshape((
            batch,
            self.groups,
            channels / self.groups * height * width,
        ))?;
        let centred = grouped.broadcast_sub(&grouped.mean_keepdim(2)?)?;
        let deviation = (centred.sqr()?.mean_keepdim(2)? + self.eps)?.sqrt()?;
        Ok(centred
            .broadcast_div(&deviation)?
            .reshape((batch, channels, height, width))?
            .broadcast_mul(&self.weight)?
            .broadcast_add(&self.bias)?)
    }
}

/// Layer normalisation over the last dimension (Ba, Kiros and Hinton, 2016).
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Loads `weight` and `bias` `(features)` of this scope.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn load(weights: &Weights, features: usize, eps: f64) -> Result<Self> {
        let weights = weights.with_dtype(DType::F32);
        Ok(Self {
            weight: weights.tensor("weight", &[features])?,
            bias: weights.tensor("bias", &[features])?,
            eps,
        })
    }

    /// Normalises `input` `(.., features)`.
    ///
    /// # Errors
    /// When the last dimension does not fit, or on device errors.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let wide = input.to_dtype(DType::F32)?.contiguous()?;
        let output = candle_nn::ops::layer_norm(&wide, &self.weight, &self.bias, self.eps as f32)?;
        Ok(output.to_dtype(input.dtype())?)
    }
}
