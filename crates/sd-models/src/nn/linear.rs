//! Matrix products with what usually follows them.

use candle_core::Tensor;

use super::Activation;
use crate::{Result, Weights};

/// `input * weight^T + bias` over the last dimension.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// Loads `weight` `(out_features, in_features)` and `bias` `(out_features)` of this scope.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn load(weights: &Weights, in_features: usize, out_features: usize) -> Result<Self> {
        let bias = Some(weights.tensor("bias", &[out_features])?);
        Ok(Self { bias, ..Self::load_without_bias(weights, in_features, out_features)? })
    }

    /// Loads a layer that has only a `weight` `(out_features, in_features)`.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn load_without_bias(weights: &Weights, in_features: usize, out_features: usize) -> Result<Self> {
        Ok(Self { weight: weights.tensor("weight", &[out_features, in_features])?, bias: None })
    }

    /// Loads a 1x1 convolution `(out_features, in_features, 1, 1)` as the linear layer that it is.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn load_pointwise(weights: &Weights, in_features: usize, out_features: usize) -> Result<Self> {
        let weight = weights.tensor("weight", &[out_features, in_features, 1, 1])?;
        let bias = Some(weights.tensor("bias", &[out_features])?);
        Ok(Self { weight: weight.reshape((out_features, in_features))?, bias })
    }

    /// The product for `input` `(.., in_features)`.
    ///
    /// # Errors
    /// When the last dimension does not fit, or on device errors.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let features = input.dims().last().copied().unwrap_or(0);
        let rows = input.elem_count() / features.max(1);
        let output = input.reshape((rows, features))?.matmul(&self.weight.t()?)?;
        let output = match &self.bias {
            Some(bias) => output.broadcast_add(bias)?,
            None => output,
        };
        let mut dims = input.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.weight.dim(0)?;
        }
        Ok(output.reshape(dims)?)
    }

    /// The product, then `activation`.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_activated(&self, input: &Tensor, activation: Activation) -> Result<Tensor> {
        activation.apply(&self.forward(input)?)
    }

    /// The product plus `residual`, which has the output's shape.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_residual(&self, input: &Tensor, residual: &Tensor) -> Result<Tensor> {
        Ok((self.forward(input)? + residual)?)
    }
}

/// A linear layer whose output is gated: `value * gelu(gate)` (Shazeer, 2020, "GLU variants improve transformer").
#[derive(Debug, Clone)]
pub struct GegluLinear {
    both: Linear,
    features: usize,
}

impl GegluLinear {
    /// Loads a layer whose `weight` is `(2 * out_features, in_features)`: values first, gates second.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn load(weights: &Weights, in_features: usize, out_features: usize) -> Result<Self> {
        Ok(Self { both: Linear::load(weights, in_features, 2 * out_features)?, features: out_features })
    }

    /// The gated product for `input` `(.., in_features)`.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let both = self.both.forward(input)?;
        let last = both.rank() - 1;
        let value = both.narrow(last, 0, self.features)?;
        let gate = both.narrow(last, self.features, self.features)?.contiguous()?;
        Ok((value * Activation::Gelu.apply(&gate)?)?)
    }
}
