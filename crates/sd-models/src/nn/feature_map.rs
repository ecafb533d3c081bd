//! Activations with height and width.

use candle_core::{D, DType, Device, Tensor};

use crate::Result;

/// Activations `(batch, channels, height, width)` in the layout that this device computes fastest.
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
        Ok(Self { tensor: tensor.contiguous()? })
    }

    /// As a contiguous tensor `(batch, channels, height, width)`.
    ///
    /// # Errors
    /// Device errors.
    pub fn to_nchw(&self) -> Result<Tensor> {
        Ok(self.tensor.contiguous()?)
    }

    pub(crate) fn raw(&self) -> &Tensor {
        &self.tensor
    }

    pub(crate) fn from_raw(tensor: Tensor) -> Self {
        Self { tensor }
    }

    /// `(batch, channels, height, width)`.
    pub fn dims(&self) -> (usize, usize, usize, usize) {
        let dims = self.tensor.dims();
        (dims[0], dims[1], dims[2], dims[3])
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
        Ok(self.tensor.flatten_from(2)?.transpose(1, 2)?.contiguous()?)
    }

    /// A sequence `(batch, height * width, channels)` as a picture.
    ///
    /// # Errors
    /// When the length is not `height * width`.
    pub fn from_tokens(tokens: &Tensor, height: usize, width: usize) -> Result<Self> {
        let (batch, _, channels) = tokens.dims3()?;
        let tensor = tokens.transpose(1, 2)?.contiguous()?.reshape((batch, channels, height, width))?;
        Ok(Self { tensor })
    }

    /// This map's channels followed by those of `other`.
    ///
    /// # Errors
    /// When batch, height or width differ.
    pub fn concat_channels(&self, other: &Self) -> Result<Self> {
        Ok(Self { tensor: Tensor::cat(&[&self.tensor, &other.tensor], 1)? })
    }

    /// The element-wise sum.
    ///
    /// # Errors
    /// When the shapes differ.
    pub fn add(&self, other: &Self) -> Result<Self> {
        Ok(Self { tensor: (&self.tensor + &other.tensor)? })
    }

    /// Nearest-neighbour resampling to `height` x `width`.
    ///
    /// # Errors
    /// Device errors.
    pub fn upsample_nearest(&self, height: usize, width: usize) -> Result<Self> {
        Ok(Self { tensor: self.tensor.upsample_nearest2d(height, width)? })
    }

    /// Zeros beyond the right and the lower border.
    pub(crate) fn pad_right_bottom(&self, amount: usize) -> Result<Self> {
        let tensor =
            self.tensor.pad_with_zeros(D::Minus1, 0, amount)?.pad_with_zeros(D::Minus2, 0, amount)?;
        Ok(Self { tensor })
    }
}
