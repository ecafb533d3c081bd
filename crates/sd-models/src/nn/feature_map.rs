//! Activations with height and width.

use std::sync::Arc;

use candle_core::{D, DType, Tensor};
use rayon::prelude::*;

use super::array::Array;
use super::pool::{Poolable, Pooled};
use super::sequence::{Sequence, SequenceData, mixed_devices};
use crate::Result;

/// Activations of a batch of pictures in the memory layout that their device computes fastest: channels-last on the
/// CPU, channels-first elsewhere.
#[derive(Debug, Clone)]
pub struct FeatureMap(pub(super) MapData);

#[derive(Debug, Clone)]
pub(super) enum MapData {
    /// Channels-last, `[batch, height, width, channels]`.
    Cpu { values: Array, dims: [usize; 4] },
    /// Channels-first.
    Device(Tensor),
}

impl FeatureMap {
    /// From a tensor `(batch, channels, height, width)`.
    ///
    /// # Errors
    /// When the tensor has not four dimensions, or on device errors.
    pub fn from_nchw(tensor: &Tensor) -> Result<Self> {
        let (batch, channels, height, width) = tensor.dims4()?;
        Ok(Self(match tensor.device().is_cpu() {
            true => MapData::Cpu {
                values: Array::from_tensor(&tensor.permute((0, 2, 3, 1))?)?,
                dims: [batch, height, width, channels],
            },
            false => MapData::Device(tensor.contiguous()?),
        }))
    }

    /// As a contiguous tensor `(batch, channels, height, width)`; on the CPU in f32.
    ///
    /// # Errors
    /// Device errors.
    pub fn to_nchw(&self) -> Result<Tensor> {
        match &self.0 {
            MapData::Cpu { values, dims } => {
                Ok(values.to_tensor(dims.to_vec())?.permute((0, 3, 1, 2))?.contiguous()?)
            }
            MapData::Device(tensor) => Ok(tensor.contiguous()?),
        }
    }

    /// `(batch, channels, height, width)`.
    pub fn dims(&self) -> (usize, usize, usize, usize) {
        match &self.0 {
            MapData::Cpu { dims: [batch, height, width, channels], .. } => {
                (*batch, *channels, *height, *width)
            }
            MapData::Device(tensor) => match *tensor.dims() {
                [batch, channels, height, width] => (batch, channels, height, width),
                _ => unreachable!("a feature map has four dimensions"),
            },
        }
    }

    /// The number format of the activations; f32 on the CPU, however they are stored.
    pub fn dtype(&self) -> DType {
        match &self.0 {
            MapData::Cpu { .. } => DType::F32,
            MapData::Device(tensor) => tensor.dtype(),
        }
    }

    /// The pixels as a sequence `(batch, height * width, channels)`, row by row.
    ///
    /// # Errors
    /// Device errors.
    pub fn to_tokens(&self) -> Result<Sequence> {
        Ok(Sequence(match &self.0 {
            MapData::Cpu { values, dims: [batch, height, width, channels] } => {
                SequenceData::Cpu { values: values.clone(), dims: [*batch, height * width, *channels] }
            }
            MapData::Device(tensor) => {
                SequenceData::Device(tensor.flatten_from(2)?.transpose(1, 2)?.contiguous()?)
            }
        }))
    }

    /// A sequence `(batch, height * width, channels)` as a picture.
    ///
    /// # Errors
    /// When the length is not `height * width`.
    pub fn from_tokens(tokens: Sequence, height: usize, width: usize) -> Result<Self> {
        let [batch, length, channels] = tokens.dims();
        if length != height * width {
            let message = format!("{length} tokens are no picture of {height} x {width}");
            return Err(candle_core::Error::Msg(message).into());
        }
        Ok(Self(match tokens.0 {
            SequenceData::Cpu { values, .. } => {
                MapData::Cpu { values, dims: [batch, height, width, channels] }
            }
            SequenceData::Device(tensor) => {
                let shape = (batch, channels, height, width);
                MapData::Device(tensor.transpose(1, 2)?.contiguous()?.reshape(shape)?)
            }
        }))
    }

    /// This map's channels followed by those of `other`.
    ///
    /// # Errors
    /// When batch, height or width differ.
    pub fn concat_channels(&self, other: &Self) -> Result<Self> {
        let (batch, left, height, width) = self.dims();
        let right = other.dims().1;
        if other.dims() != (batch, right, height, width) {
            let message = format!("channels of {:?} and {:?} cannot be joined", self.dims(), other.dims());
            return Err(candle_core::Error::Msg(message).into());
        }
        let (a, b) = match (&self.0, &other.0) {
            (MapData::Cpu { values: a, .. }, MapData::Cpu { values: b, .. }) => (a, b),
            (MapData::Device(a), MapData::Device(b)) => {
                return Ok(Self(MapData::Device(Tensor::cat(&[a, b], 1)?)));
            }
            _ => return Err(mixed_devices()),
        };
        let values = match (a, &b.to_format(a.format())?) {
            (Array::F32(a), Array::F32(b)) => Array::F32(join(a, b, left, right)),
            (Array::Bf16(a), Array::Bf16(b)) => Array::Bf16(join(a, b, left, right)),
            _ => return Err(mixed_devices()),
        };
        let channels = left + right;
        Ok(Self(MapData::Cpu { values, dims: [batch, height, width, channels] }))
    }

    /// Nearest-neighbour resampling to `height` x `width`.
    ///
    /// # Errors
    /// Device errors.
    pub fn upsample_nearest(&self, height: usize, width: usize) -> Result<Self> {
        let (values, dims) = match &self.0 {
            MapData::Device(tensor) => {
                return Ok(Self(MapData::Device(tensor.upsample_nearest2d(height, width)?)));
            }
            MapData::Cpu { values, dims } => (values, *dims),
        };
        let resampled = match values {
            Array::F32(values) => Array::F32(resample(values, dims, height, width)),
            Array::Bf16(values) => Array::Bf16(resample(values, dims, height, width)),
        };
        let [batch, _, _, channels] = dims;
        Ok(Self(MapData::Cpu { values: resampled, dims: [batch, height, width, channels] }))
    }

    /// Zeros beyond the right and the lower border of a channels-first tensor.
    pub(super) fn pad_right_bottom(tensor: &Tensor, amount: usize) -> Result<Tensor> {
        Ok(tensor.pad_with_zeros(D::Minus1, 0, amount)?.pad_with_zeros(D::Minus2, 0, amount)?)
    }
}

/// Rows of `left` values of `a`, each followed by `right` values of `b`.
fn join<T: Poolable>(a: &[T], b: &[T], left: usize, right: usize) -> Arc<Pooled<T>> {
    let mut joined = Pooled::new(a.len() + b.len());
    if left + right > 0 {
        // By lines of pixels, so that the copies are long enough to be worth a task.
        const PIXELS: usize = 256;
        let lines = joined.par_chunks_mut(PIXELS * (left + right)).enumerate();
        lines.for_each(|(line, joined)| {
            for (pixel, joined) in joined.chunks_exact_mut(left + right).enumerate() {
                let pixel = line * PIXELS + pixel;
                let (to_a, to_b) = joined.split_at_mut(left);
                to_a.copy_from_slice(&a[pixel * left..][..left]);
                to_b.copy_from_slice(&b[pixel * right..][..right]);
            }
        });
    }
    Arc::new(joined)
}

/// Nearest-neighbour resampling of channels-last pictures of `[batch, height, width, channels]`.
fn resample<T: Poolable>(
    values: &[T],
    [batch, from_height, from_width, channels]: [usize; 4],
    height: usize,
    width: usize,
) -> Arc<Pooled<T>> {
    let line_len = width * channels;
    let mut resampled = Pooled::new(batch * height * line_len);
    resampled.par_chunks_mut(line_len.max(1)).enumerate().for_each(|(line, output)| {
        let (image, y) = (line / height, line % height);
        let row = (image * from_height + y * from_height / height) * from_width;
        for (x, pixel) in output.chunks_exact_mut(channels).enumerate() {
            let from = (row + x * from_width / width) * channels;
            pixel.copy_from_slice(&values[from..from + channels]);
        }
    });
    Arc::new(resampled)
}
