//! Normalisations.

use candle_core::{DType, Tensor};
use sd_kernels::NormParams;

use super::array::{Array, Format, read, write};
use super::feature_map::MapData;
use super::sequence::SequenceData;
use super::{FeatureMap, Sequence, cpu};
use crate::{Result, Weights};

/// Scale and shift of a norm.
#[derive(Debug, Clone)]
enum Affine {
    Cpu { weight: Vec<f32>, bias: Vec<f32>, output: Format },
    Device { weight: Tensor, bias: Tensor },
}

impl Affine {
    fn load(weights: &Weights, channels: usize) -> Result<Self> {
        let output = cpu::operands(weights.dtype());
        let weights = weights.with_dtype(DType::F32);
        let (weight, bias) = (weights.tensor("weight", &[channels])?, weights.tensor("bias", &[channels])?);
        Ok(match weights.device().is_cpu() {
            true => Self::Cpu { weight: weight.to_vec1()?, bias: bias.to_vec1()?, output },
            false => Self::Device { weight, bias },
        })
    }
}

/// Group normalisation over channels (Wu and He, 2018), with the SiLU that follows it in residual blocks.
#[derive(Debug, Clone)]
pub struct GroupNorm {
    affine: Affine,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// Loads `weight` and `bias` `(channels)` of this scope.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn load(weights: &Weights, channels: usize, groups: usize, eps: f64) -> Result<Self> {
        Ok(Self { affine: Affine::load(weights, channels)?, groups, eps })
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
        match (&self.affine, &input.data) {
            (Affine::Cpu { weight, bias, output }, MapData::Cpu { values, dims }) => {
                let params = NormParams { weight, bias, eps: self.eps as f32 };
                let [batch, height, width, channels] = *dims;
                let shape = [batch, height * width, channels];
                let values = read!(values, values => write!(*output, values.len(), output => {
                    cpu::kernels().group_norm(values, shape, self.groups, params, silu, output)
                }));
                Ok(input.with_data(MapData::Cpu { values, dims: *dims }))
            }
            (Affine::Device { weight, bias }, MapData::Device(tensor)) => {
                let normalised = self.normalised(tensor, weight, bias)?;
                let output = if silu { normalised.silu()? } else { normalised };
                Ok(input.with_data(MapData::Device(output.to_dtype(tensor.dtype())?)))
            }
            _ => Err(super::sequence::mixed_devices()),
        }
    }

    fn normalised(&self, input: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let (batch, channels, height, width) = input.dims4()?;
        let grouped = input.to_dtype(DType::F32)?.reshape((
            batch,
            self.groups,
            channels / self.groups * height * width,
        ))?;
        let centred = grouped.broadcast_sub(&grouped.mean_keepdim(2)?)?;
        let deviation = (centred.sqr()?.mean_keepdim(2)? + self.eps)?.sqrt()?;
        Ok(centred
            .broadcast_div(&deviation)?
            .reshape((batch, channels, height, width))?
            .broadcast_mul(&weight.reshape((1, channels, 1, 1))?)?
            .broadcast_add(&bias.reshape((1, channels, 1, 1))?)?)
    }
}

/// Layer normalisation over the channels (Ba, Kiros and Hinton, 2016).
#[derive(Debug, Clone)]
pub struct LayerNorm {
    affine: Affine,
    eps: f64,
}

impl LayerNorm {
    /// Loads `weight` and `bias` `(features)` of this scope.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn load(weights: &Weights, features: usize, eps: f64) -> Result<Self> {
        Ok(Self { affine: Affine::load(weights, features)?, eps })
    }

    /// Normalises each vector of `input`.
    ///
    /// # Errors
    /// When the channels do not fit, or on device errors.
    pub fn forward(&self, input: &Sequence) -> Result<Sequence> {
        match &self.affine {
            Affine::Cpu { output, .. } => self.forward_as(input, *output),
            Affine::Device { .. } => self.forward_as(input, Format::F32),
        }
    }

    /// [`LayerNorm::forward`], for a state that is read by more than products: in full precision on the CPU.
    ///
    /// # Errors
    /// As [`LayerNorm::forward`].
    pub fn forward_precise(&self, input: &Sequence) -> Result<Sequence> {
        self.forward_as(input, Format::F32)
    }

    fn forward_as(&self, input: &Sequence, format: Format) -> Result<Sequence> {
        match (&self.affine, &input.0) {
            (Affine::Cpu { weight, bias, .. }, SequenceData::Cpu { values, dims }) => {
                let params = NormParams { weight, bias, eps: self.eps as f32 };
                let values: Array = read!(values, values => write!(format, values.len(), output => {
                    cpu::kernels().layer_norm(values, weight.len(), params, output)
                }));
                Ok(Sequence(SequenceData::Cpu { values, dims: *dims }))
            }
            (Affine::Device { weight, bias }, SequenceData::Device(tensor)) => {
                let wide = tensor.to_dtype(DType::F32)?.contiguous()?;
                let output = candle_nn::ops::layer_norm(&wide, weight, bias, self.eps as f32)?;
                Ok(Sequence(SequenceData::Device(output.to_dtype(tensor.dtype())?)))
            }
            _ => Err(super::sequence::mixed_devices()),
        }
    }
}
