//! Activations as sequences of vectors.

use candle_core::Tensor;

use super::array::Array;
use crate::Result;

/// Activations of a batch of sequences, `(batch, length, channels)`.
#[derive(Debug, Clone)]
pub struct Sequence(pub(super) SequenceData);

#[derive(Debug, Clone)]
pub(super) enum SequenceData {
    Cpu { values: Array, dims: [usize; 3] },
    Device(Tensor),
}

impl Sequence {
    /// From a tensor `(batch, length, channels)`.
    ///
    /// # Errors
    /// When the tensor has not three dimensions, or on device errors.
    pub fn from_tensor(tensor: &Tensor) -> Result<Self> {
        let (batch, length, channels) = tensor.dims3()?;
        Ok(Self(match tensor.device().is_cpu() {
            true => {
                SequenceData::Cpu { values: Array::from_tensor(tensor)?, dims: [batch, length, channels] }
            }
            false => SequenceData::Device(tensor.clone()),
        }))
    }

    /// From a tensor `(batch, channels)`: one vector for each sample.
    ///
    /// # Errors
    /// When the tensor has not two dimensions, or on device errors.
    pub fn from_vectors(tensor: &Tensor) -> Result<Self> {
        let (batch, channels) = tensor.dims2()?;
        Self::from_tensor(&tensor.reshape((batch, 1, channels))?)
    }

    /// As a tensor `(batch, length, channels)`; on the CPU in f32.
    ///
    /// # Errors
    /// Device errors.
    pub fn to_tensor(&self) -> Result<Tensor> {
        match &self.0 {
            SequenceData::Cpu { values, dims } => values.to_tensor(dims.to_vec()),
            SequenceData::Device(tensor) => Ok(tensor.clone()),
        }
    }

    /// As a tensor `(batch, channels)`, for sequences of length 1.
    ///
    /// # Errors
    /// When they are longer, or on device errors.
    pub fn to_vectors(&self) -> Result<Tensor> {
        let [batch, _, channels] = self.dims();
        Ok(self.to_tensor()?.reshape((batch, channels))?)
    }

    /// `[batch, length, channels]`.
    pub fn dims(&self) -> [usize; 3] {
        match &self.0 {
            SequenceData::Cpu { dims, .. } => *dims,
            SequenceData::Device(tensor) => match *tensor.dims() {
                [batch, length, channels] => [batch, length, channels],
                _ => unreachable!("a sequence has three dimensions"),
            },
        }
    }
}

/// What a CPU layer answers to activations of another device.
pub(super) fn mixed_devices() -> crate::Error {
    candle_core::Error::Msg("a layer was given activations of another device".into()).into()
}
