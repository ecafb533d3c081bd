//! Normalisations.

use candle_core::{DType, Tensor};
use sd_kernels::NormParams;

use super::{FeatureMap, cpu};
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
        let weights = weights.with_dtype(DType::F32);
        let weight = weights.tensor("weight", &[channels])?;
        let bias = weights.tensor("bias", &[channels])?;
        Ok(Self { weight, bias, groups, eps })
    }

    /// Normalises each group of channels of each picture to mean 0 and variance 1, then scales and shifts.
    ///
    /// # Errors
    /// When the channels do not fit, or on device errors.
    pub fn forward(&self, input: &FeatureMap) -> Result<FeatureMap> {
        self.forward_with(input, false)
    }

    /// [`GroupNorm::forward`], then SiLU.
    ///
    /// # Errors
    /// As [`GroupNorm::forward`].
    pub fn forward_silu(&self, input: &FeatureMap) -> Result<FeatureMap> {
        self.forward_with(input, true)
    }

    fn forward_with(&self, input: &FeatureMap, silu: bool) -> Result<FeatureMap> {
        if !input.is_cpu() {
            let normalised = self.normalised(input)?;
            let output = if silu { normalised.silu()? } else { normalised };
            return Ok(FeatureMap::from_raw(output.to_dtype(input.dtype())?));
        }
        let (batch, channels, height, width) = input.dims();
        let mut output = vec![0f32; batch * channels * height * width];
        cpu::values(input.raw(), |values| {
            cpu::values(&self.weight, |weight| {
                cpu::values(&self.bias, |bias| {
                    let params = NormParams { weight, bias, eps: self.eps as f32 };
                    let shape = [batch, height * width, channels];
                    Ok(cpu::kernels().group_norm(values, shape, self.groups, params, silu, &mut output)?)
                })
            })
        })?;
        Ok(FeatureMap::from_raw(cpu::tensor(output, (batch, height, width, channels))?))
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
            .broadcast_mul(&self.weight.reshape((1, channels, 1, 1))?)?
            .broadcast_add(&self.bias.reshape((1, channels, 1, 1))?)?)
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
        if input.device().is_cpu() {
            let mut output = vec![0f32; input.elem_count()];
            cpu::values(input, |values| {
                cpu::values(&self.weight, |weight| {
                    cpu::values(&self.bias, |bias| {
                        let params = NormParams { weight, bias, eps: self.eps as f32 };
                        Ok(cpu::kernels().layer_norm(values, weight.len(), params, &mut output)?)
                    })
                })
            })?;
            return cpu::tensor(output, input.shape());
        }
        let wide = input.to_dtype(DType::F32)?.contiguous()?;
        let output = candle_nn::ops::layer_norm(&wide, &self.weight, &self.bias, self.eps as f32)?;
        Ok(output.to_dtype(input.dtype())?)
    }
}
