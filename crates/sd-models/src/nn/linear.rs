//! Matrix products with what usually follows them.

use std::sync::Arc;

use candle_core::Tensor;
use sd_kernels::{Epilogue, PackedLinear};

use super::array::{Array, Format, read, residual_for, write};
use super::sequence::{SequenceData, mixed_devices};
use super::{Activation, Sequence, cpu};
use crate::{Result, Weights};

/// `input * weight^T + bias` for each vector of a sequence.
#[derive(Debug, Clone)]
pub struct Linear {
    weights: LinearWeights,
    out_features: usize,
}

#[derive(Debug, Clone)]
enum LinearWeights {
    /// `operands` is the format of outputs that go straight into the next product.
    Packed {
        packed: Arc<PackedLinear>,
        operands: Format,
    },
    Tensors {
        weight: Tensor,
        bias: Option<Tensor>,
    },
}

/// What a product's output is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It is added to, normalised, or handed out.
    State,
    /// It is only multiplied again.
    Operand,
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
        weights.layer(Some(shape), || Self::read(weights, shape, bias))
    }

    fn read(weights: &Weights, shape: &[usize], bias: bool) -> Result<Self> {
        let (out_features, in_features) = (shape[0], shape[1]);
        if weights.device().is_cpu() {
            let bias = if bias { Some(weights.stored("bias", &[out_features])?) } else { None };
            let packed = Arc::new(PackedLinear::new(
                cpu::kernels(),
                weights.stored("weight", shape)?.as_packable(),
                out_features,
                in_features,
                bias.as_ref().map(|bias| bias.as_packable()),
                cpu::precision(weights.dtype()),
            )?);
            let operands = cpu::operands(weights.dtype());
            return Ok(Self { weights: LinearWeights::Packed { packed, operands }, out_features });
        }
        let weight = weights.tensor("weight", shape)?.reshape((out_features, in_features))?;
        let bias = if bias { Some(weights.tensor("bias", &[out_features])?) } else { None };
        Ok(Self { weights: LinearWeights::Tensors { weight, bias }, out_features })
    }

    /// The product.
    ///
    /// # Errors
    /// When the channels do not fit, or on device errors.
    pub fn forward(&self, input: &Sequence) -> Result<Sequence> {
        self.forward_with(input, None, None, Use::State)
    }

    /// The product, then `activation`: the inside of a feed-forward, to be multiplied again.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_activated(&self, input: &Sequence, activation: Activation) -> Result<Sequence> {
        self.forward_with(input, Some(activation), None, Use::Operand)
    }

    /// The product plus `residual`, which has the output's shape.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_residual(&self, input: &Sequence, residual: &Sequence) -> Result<Sequence> {
        self.forward_with(input, None, Some(residual), Use::State)
    }

    /// The product as queries, keys or values.
    pub(super) fn forward_operand(&self, input: &Sequence) -> Result<Sequence> {
        self.forward_with(input, None, None, Use::Operand)
    }

    fn forward_with(
        &self,
        input: &Sequence,
        activation: Option<Activation>,
        residual: Option<&Sequence>,
        used_as: Use,
    ) -> Result<Sequence> {
        let [batch, length, _] = input.dims();
        match (&self.weights, &input.0) {
            (LinearWeights::Packed { packed, operands }, SequenceData::Cpu { values, .. }) => {
                let activation = activation.map_or(sd_kernels::Activation::None, Activation::kernel);
                let format = if used_as == Use::Operand { *operands } else { Format::F32 };
                let residual = match residual.map(|residual| &residual.0) {
                    Some(SequenceData::Cpu { values, .. }) => Some(values.to_format(format)?),
                    Some(SequenceData::Device(_)) => return Err(mixed_devices()),
                    None => None,
                };
                let values =
                    run_packed(packed, values, batch * length, activation, residual.as_ref(), format)?;
                Ok(Sequence(SequenceData::Cpu { values, dims: [batch, length, self.out_features] }))
            }
            (LinearWeights::Tensors { weight, bias }, SequenceData::Device(tensor)) => {
                let rows = batch * length;
                let mut output = tensor.reshape((rows, weight.dim(1)?))?.matmul(&weight.t()?)?;
                if let Some(bias) = bias {
                    output = output.broadcast_add(bias)?;
                }
                output = output.reshape((batch, length, self.out_features))?;
                if let Some(activation) = activation {
                    output = activation.apply(&output)?;
                }
                match residual.map(|residual| &residual.0) {
                    Some(SequenceData::Device(residual)) => output = (output + residual)?,
                    Some(SequenceData::Cpu { .. }) => return Err(mixed_devices()),
                    None => {}
                }
                Ok(Sequence(SequenceData::Device(output)))
            }
            _ => Err(mixed_devices()),
        }
    }
}

fn run_packed(
    packed: &PackedLinear,
    input: &Array,
    rows: usize,
    activation: sd_kernels::Activation,
    residual: Option<&Array>,
    format: Format,
) -> Result<Array> {
    Ok(read!(input, input => write!(format, rows * packed.outputs(), output => {
        let residual = residual_for(residual, output);
        packed.forward(input, rows, output, Epilogue { activation, residual })
    })))
}

/// A linear layer whose output is gated: `value * gelu(gate)` (Shazeer, 2020, "GLU variants improve transformer").
#[derive(Debug, Clone)]
pub struct GegluLinear {
    weights: GegluWeights,
    features: usize,
}

#[derive(Debug, Clone)]
enum GegluWeights {
    Packed { packed: Arc<PackedLinear>, operands: Format },
    Both(Linear),
}

impl GegluLinear {
    /// Loads a layer whose `weight` is `(2 * out_features, in_features)`: values first, gates second.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn load(weights: &Weights, in_features: usize, out_features: usize) -> Result<Self> {
        let shape = [2 * out_features, in_features];
        weights.layer(Some(&shape), || Self::read(weights, shape))
    }

    fn read(weights: &Weights, shape: [usize; 2]) -> Result<Self> {
        let [rows, in_features] = shape;
        let out_features = rows / 2;
        let weights = match weights.device().is_cpu() {
            true => GegluWeights::Packed {
                packed: Arc::new(PackedLinear::gated(
                    cpu::kernels(),
                    weights.stored("weight", &shape)?.as_packable(),
                    out_features,
                    in_features,
                    Some(weights.stored("bias", &[rows])?.as_packable()),
                    cpu::precision(weights.dtype()),
                )?),
                operands: cpu::operands(weights.dtype()),
            },
            false => GegluWeights::Both(Linear::read(weights, &shape, true)?),
        };
        Ok(Self { weights, features: out_features })
    }

    /// The gated product: the inside of a feed-forward, to be multiplied again.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward(&self, input: &Sequence) -> Result<Sequence> {
        match (&self.weights, &input.0) {
            (GegluWeights::Packed { packed, operands }, SequenceData::Cpu { values, dims }) => {
                let [batch, length, _] = *dims;
                let activation = Activation::Gelu.kernel();
                let values = run_packed(packed, values, batch * length, activation, None, *operands)?;
                Ok(Sequence(SequenceData::Cpu { values, dims: [batch, length, self.features] }))
            }
            (GegluWeights::Both(both), _) => {
                let both = both.forward(input)?.to_tensor()?;
                let value = both.narrow(2, 0, self.features)?;
                let gate = both.narrow(2, self.features, self.features)?.contiguous()?;
                Ok(Sequence(SequenceData::Device((value * Activation::Gelu.apply(&gate)?)?)))
            }
            _ => Err(mixed_devices()),
        }
    }
}
