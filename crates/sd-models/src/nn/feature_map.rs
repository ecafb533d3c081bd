//! Activations with height and width.

use candle_core::{D, DType, Device, Tensor};

use super::cpu;
use crate::Result;

/// Activations of a batch of pictures in the memory layout that their device computes fastest: channels-last on the
/// CPU, channels-first elsewhere.
#[derive(Debug, Clone)]
pub struct FeatureMap {
    tensor: Tensor,
}

impl FeatureMap {
    /// From a tensor `(batch, channels, height, width)`.
    ///
    /// # Errors
    /// When the tensor has not four dimensions.
    pub fn from_nchw(tensor: &Tensor) -> Result<Self> {
        tensor.dims4()?;
        let tensor = if tensor.device().is_cpu() { tensor.permute((0, 2, 3, 1))? } else { tensor.clone() };
        Ok(Self { tensor: tensor.contiguous()? })
    }

    /// As a contiguous tensor `(batch, channels, height, width)`.
    ///
    /// # Errors
    /// Device errors.
    pub fn to_nchw(&self) -> Result<Tensor> {
        let tensor = if self.is_cpu() { self.tensor.permute((0, 3, 1, 2))? } else { self.tensor.clone() };
        Ok(tensor.contiguous()?)
    }

    /// The tensor in this device's layout.
    pub(super) fn raw(&self) -> &Tensor {
        &self.tensor
    }

    /// From a tensor in its device's layout.
    pub(super) fn from_raw(tensor: Tensor) -> Self {
        Self { tensor }
    }

    pub(super) fn is_cpu(&self) -> bool {
        self.tensor.device().is_cpu()
    }

    /// `(batch, channels, height, width)`.
    pub fn dims(&self) -> (usize, usize, usize, usize) {
        match (self.tensor.dims(), self.is_cpu()) {
            (&[batch, height, width, channels], true) | (&[batch, channels, height, width], false) => {
                (batch, channels, height, width)
            }
            _ => unreachable!("a feature map has four dimensions"),
        }
    }

    /// The number format of the activations.
    pub fn dtype(&self) -> DType {
        self.tensor.dtype()
    }

    /// The device that holds them.
    pub fn device(&self) -> &Device {
        self.tensor.device()
    }

    /// The pixels as a sequence `(batch, height * width, channels)`, row by row.
    ///
    /// # Errors
    /// Device errors.
    pub fn to_tokens(&self) -> Result<Tensor> {
        let (batch, channels, height, width) = self.dims();
        match self.is_cpu() {
            true => Ok(self.tensor.reshape((batch, height * width, channels))?),
            false => Ok(self.tensor.flatten_from(2)?.transpose(1, 2)?.contiguous()?),
        }
    }

    /// A sequence `(batch, height * width, channels)` as a picture.
    ///
    /// # Errors
    /// When the length is not `height * width`.
    pub fn from_tokens(tokens: &Tensor, height: usize, width: usize) -> Result<Self> {
        let (batch, _, channels) = tokens.dims3()?;
        let tensor = match tokens.device().is_cpu() {
            true => tokens.contiguous()?.reshape((batch, height, width, channels))?,
            false => tokens.transpose(1, 2)?.contiguous()?.reshape((batch, channels, height, width))?,
        };
        Ok(Self { tensor })
    }

    /// This map's channels followed by those of `other`.
    ///
    /// # Errors
    /// When batch, height or width differ.
    pub fn concat_channels(&self, other: &Self) -> Result<Self> {
        if !self.is_cpu() {
            return Ok(Self { tensor: Tensor::cat(&[&self.tensor, &other.tensor], 1)? });
        }
        let (batch, left, height, width) = self.dims();
        let right = other.dims().1;
        if other.dims() != (batch, right, height, width) {
            return Err(candle_core::Error::Msg(format!(
                "channels of {:?} and {:?} cannot be joined",
                self.dims(),
                other.dims()
            ))
            .into());
        }
        // Pixel by pixel: candle's general concatenation along the last axis is many times slower.
        let joined = cpu::values(&self.tensor, |a| {
            cpu::values(&other.tensor, |b| {
                let mut joined = Vec::with_capacity(a.len() + b.len());
                for (a, b) in a.chunks_exact(left).zip(b.chunks_exact(right)) {
                    joined.extend_from_slice(a);
                    joined.extend_from_slice(b);
                }
                Ok(joined)
            })
        })?;
        Ok(Self { tensor: cpu::tensor(joined, (batch, height, width, left + right))? })
    }

    /// Nearest-neighbour resampling to `height` x `width`.
    ///
    /// # Errors
    /// Device errors.
    pub fn upsample_nearest(&self, height: usize, width: usize) -> Result<Self> {
        if !self.is_cpu() {
            return Ok(Self { tensor: self.tensor.upsample_nearest2d(height, width)? });
        }
        let (batch, channels, from_height, from_width) = self.dims();
        let resampled = cpu::values(&self.tensor, |values| {
            let mut resampled = Vec::with_capacity(batch * height * width * channels);
            for image in values.chunks_exact(from_height * from_width * channels) {
                for y in 0..height {
                    let row = y * from_height / height * from_width;
                    for x in 0..width {
                        let pixel = (row + x * from_width / width) * channels;
                        resampled.extend_from_slice(&image[pixel..pixel + channels]);
                    }
                }
            }
            Ok(resampled)
        })?;
        Ok(Self { tensor: cpu::tensor(resampled, (batch, height, width, channels))? })
    }

    /// Zeros beyond the right and the lower border of a channels-first map.
    pub(super) fn pad_right_bottom(&self, amount: usize) -> Result<Self> {
        let tensor =
            self.tensor.pad_with_zeros(D::Minus1, 0, amount)?.pad_with_zeros(D::Minus2, 0, amount)?;
        Ok(Self { tensor })
    }
}
