//! Matrix products with what usually follows them.

use std::sync::Arc;

use candle_core::Tensor;
use sd_kernels::{Epilogue, PackedLinear};

use super::{Activation, cpu};
use crate::{Result, Weights};

/// `input * weight^T + bias` over the last dimension.
#[derive(Debug, Clone)]
pub struct Linear {
    weights: LinearWeights,
    out_features: usize,
}

#[derive(Debug, Clone)]
enum LinearWeights {
    Packed(Arc<PackedLinear>),
    Tensors { weight: Tensor, bias: Option<Tensor> },
}

impl Linear {
    /// Loads `weight` `(out_features, in_features)` and `bias` `(out_features)` of this scope.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn load(weights: &Weights, in_features: usize, out_features: usize) -> Result<Self> {
        Self::load_shaped(weights, &[out_features, in_features], true)
    }

    /// Loads a layer that has only a `weight` `(out_features, in_features)`.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn load_without_bias(weights: &Weights, in_features: usize, out_features: usize) -> Result<Self> {
        Self::load_shaped(weights, &[out_features, in_features], false)
    }

    /// Loads a 1x1 convolution `(out_features, in_features, 1, 1)` as the linear layer that it is.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn load_pointwise(weights: &Weights, in_features: usize, out_features: usize) -> Result<Self> {
        Self::load_shaped(weights, &[out_features, in_features, 1, 1], true)
    }

    fn load_shaped(weights: &Weights, shape: &[usize], bias: bool) -> Result<Self> {
        let (out_features, in_features) = (shape[0], shape[1]);
        if weights.device().is_cpu() {
            let bias = if bias { Some(weights.stored("bias", &[out_features])?) } else { None };
            let packed = PackedLinear::new(
                cpu::kernels(),
                weights.stored("weight", shape)?.as_packable(),
                out_features,
                in_features,
                bias.as_ref().map(|bias| bias.as_packable()),
                cpu::precision(weights.dtype()),
            )?;
            return Ok(Self { weights: LinearWeights::Packed(Arc::new(packed)), out_features });
        }
        let weight = weights.tensor("weight", shape)?.reshape((out_features, in_features))?;
        let bias = if bias { Some(weights.tensor("bias", &[out_features])?) } else { None };
        Ok(Self { weights: LinearWeights::Tensors { weight, bias }, out_features })
    }

    /// The product for `input` `(.., in_features)`.
    ///
    /// # Errors
    /// When the last dimension does not fit, or on device errors.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.forward_with(input, None, None)
    }

    /// The product, then `activation`.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_activated(&self, input: &Tensor, activation: Activation) -> Result<Tensor> {
        self.forward_with(input, Some(activation), None)
    }

    /// The product plus `residual`, which has the output's shape.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_residual(&self, input: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.forward_with(input, None, Some(residual))
    }

    fn forward_with(
        &self,
        input: &Tensor,
        activation: Option<Activation>,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (rows, shape) = output_shape(input, self.out_features);
        let (weight, bias) = match &self.weights {
            LinearWeights::Packed(packed) => {
                let mut output = vec![0f32; rows * self.out_features];
                cpu::values(input, |values| {
                    cpu::optional_values(residual, |residual| {
                        let activation = activation.map_or(sd_kernels::Activation::None, Activation::kernel);
                        Ok(packed.forward(values, rows, &mut output, Epilogue { activation, residual })?)
                    })
                })?;
                return cpu::tensor(output, shape);
            }
            LinearWeights::Tensors { weight, bias } => (weight, bias),
        };
        let mut output = input.reshape((rows, weight.dim(1)?))?.matmul(&weight.t()?)?;
        if let Some(bias) = bias {
            output = output.broadcast_add(bias)?;
        }
        output = output.reshape(shape)?;
        if let Some(activation) = activation {
            output = activation.apply(&output)?;
        }
        match residual {
            Some(residual) => Ok((output + residual)?),
            None => Ok(output),
        }
    }
}

/// The rows of `input` and its shape with another last dimension.
fn output_shape(input: &Tensor, features: usize) -> (usize, Vec<usize>) {
    let mut shape = input.dims().to_vec();
    let last = shape.last_mut().map_or(1, |last| std::mem::replace(last, features));
    (input.elem_count() / last.max(1), shape)
}

/// A linear layer whose output is gated: `value * gelu(gate)` (Shazeer, 2020, "GLU variants improve transformer").
#[derive(Debug, Clone)]
pub struct GegluLinear {
    weights: GegluWeights,
    features: usize,
}

#[derive(Debug, Clone)]
enum GegluWeights {
    Packed(Arc<PackedLinear>),
    Both(Linear),
}

impl GegluLinear {
    /// Loads a layer whose `weight` is `(2 * out_features, in_features)`: values first, gates second.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn load(weights: &Weights, in_features: usize, out_features: usize) -> Result<Self> {
        let weights = match weights.device().is_cpu() {
            true => GegluWeights::Packed(Arc::new(PackedLinear::gated(
                cpu::kernels(),
                weights.stored("weight", &[2 * out_features, in_features])?.as_packable(),
                out_features,
                in_features,
                Some(weights.stored("bias", &[2 * out_features])?.as_packable()),
                cpu::precision(weights.dtype()),
            )?)),
            false => GegluWeights::Both(Linear::load(weights, in_features, 2 * out_features)?),
        };
        Ok(Self { weights, features: out_features })
    }

    /// The gated product for `input` `(.., in_features)`.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward(&self, input: &Tensor) -> Result<Tensor> {
        match &self.weights {
            GegluWeights::Packed(packed) => {
                let (rows, shape) = output_shape(input, self.features);
                let mut output = vec![0f32; rows * self.features];
                cpu::values(input, |values| {
                    let activation = Activation::Gelu.kernel();
                    Ok(packed.forward(values, rows, &mut output, Epilogue { activation, residual: None })?)
                })?;
                cpu::tensor(output, shape)
            }
            GegluWeights::Both(both) => {
                let both = both.forward(input)?;
                let last = both.rank() - 1;
                let value = both.narrow(last, 0, self.features)?;
                let gate = both.narrow(last, self.features, self.features)?.contiguous()?;
                Ok((value * Activation::Gelu.apply(&gate)?)?)
            }
        }
    }
}
