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
pub struct FeatureMap {
    pub(super) data: MapData,
    pub(super) seamless: Seamless,
}

/// Which edges of a picture meet, so that it can be laid beside itself without a seam: a convolution sees the other
/// side there instead of zeros.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seamless {
    /// Left and right.
    pub x: bool,
    /// Top and bottom.
    pub y: bool,
}

impl Seamless {
    /// Whether any edges meet.
    pub fn any(self) -> bool {
        self.x || self.y
    }
}

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
        let data = match tensor.device().is_cpu() {
            true => MapData::Cpu {
                values: Array::from_tensor(&tensor.permute((0, 2, 3, 1))?)?,
                dims: [batch, height, width, channels],
            },
            false => MapData::Device(tensor.contiguous()?),
        };
        Ok(Self { data, seamless: Seamless::default() })
    }

    /// The same map whose edges meet as `seamless` says, and those of all that layers make of it.
    pub fn with_seamless(self, seamless: Seamless) -> Self {
        Self { seamless, ..self }
    }

    /// Which edges meet.
    pub fn seamless(&self) -> Seamless {
        self.seamless
    }

    /// Other values whose edges meet as this map's do.
    pub(super) fn with_data(&self, data: MapData) -> Self {
        Self { data, seamless: self.seamless }
    }

    /// As a contiguous tensor `(batch, channels, height, width)`; on the CPU in f32.
    ///
    /// # Errors
    /// Device errors.
    pub fn to_nchw(&self) -> Result<Tensor> {
        match &self.data {
            MapData::Cpu { values, dims } => {
                Ok(values.to_tensor(dims.to_vec())?.permute((0, 3, 1, 2))?.contiguous()?)
            }
            MapData::Device(tensor) => Ok(tensor.contiguous()?),
        }
    }

    /// `(batch, channels, height, width)`.
    pub fn dims(&self) -> (usize, usize, usize, usize) {
        match &self.data {
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
        match &self.data {
            MapData::Cpu { .. } => DType::F32,
            MapData::Device(tensor) => tensor.dtype(),
        }
    }

    /// The pixels as a sequence `(batch, height * width, channels)`, row by row.
    ///
    /// # Errors
    /// Device errors.
    pub fn to_tokens(&self) -> Result<Sequence> {
        Ok(Sequence(match &self.data {
            MapData::Cpu { values, dims: [batch, height, width, channels] } => {
                SequenceData::Cpu { values: values.clone(), dims: [*batch, height * width, *channels] }
            }
            MapData::Device(tensor) => {
                SequenceData::Device(tensor.flatten_from(2)?.transpose(1, 2)?.contiguous()?)
            }
        }))
    }

    /// A sequence `(batch, height * width, channels)` as a picture of this one's height and width.
    ///
    /// # Errors
    /// When the length is not `height * width`.
    pub fn with_tokens(&self, tokens: Sequence) -> Result<Self> {
        let (_, _, height, width) = self.dims();
        let [batch, length, channels] = tokens.dims();
        if length != height * width {
            let message = format!("{length} tokens are no picture of {height} x {width}");
            return Err(candle_core::Error::Msg(message).into());
        }
        Ok(self.with_data(match tokens.0 {
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
        let (a, b) = match (&self.data, &other.data) {
            (MapData::Cpu { values: a, .. }, MapData::Cpu { values: b, .. }) => (a, b),
            (MapData::Device(a), MapData::Device(b)) => {
                return Ok(self.with_data(MapData::Device(Tensor::cat(&[a, b], 1)?)));
            }
            _ => return Err(mixed_devices()),
        };
        let values = match (a, &b.to_format(a.format())?) {
            (Array::F32(a), Array::F32(b)) => Array::F32(join(a, b, left, right)),
            (Array::Bf16(a), Array::Bf16(b)) => Array::Bf16(join(a, b, left, right)),
            _ => return Err(mixed_devices()),
        };
        let channels = left + right;
        Ok(self.with_data(MapData::Cpu { values, dims: [batch, height, width, channels] }))
    }

    /// Nearest-neighbour resampling to `height` x `width`.
    ///
    /// # Errors
    /// Device errors.
    pub fn upsample_nearest(&self, height: usize, width: usize) -> Result<Self> {
        let (values, dims) = match &self.data {
            MapData::Device(tensor) => {
                return Ok(self.with_data(MapData::Device(tensor.upsample_nearest2d(height, width)?)));
            }
            MapData::Cpu { values, dims } => (values, *dims),
        };
        let resampled = match values {
            Array::F32(values) => Array::F32(resample(values, dims, height, width)),
            Array::Bf16(values) => Array::Bf16(resample(values, dims, height, width)),
        };
        let [batch, _, _, channels] = dims;
        Ok(self.with_data(MapData::Cpu { values: resampled, dims: [batch, height, width, channels] }))
    }

    /// With `by` more pixels on each side whose edge meets another: what follows if the picture is laid beside itself.
    pub(crate) fn surrounded(&self, by: usize) -> Result<Self> {
        let (_, _, height, width) = self.dims();
        let span = |meets: bool, length: usize| match meets {
            // From `by` before the first pixel, without leaving 0..length on the way.
            true => ((length - by % length) % length, length + 2 * by),
            false => (0, length),
        };
        let (rows, columns) = (span(self.seamless.y, height), span(self.seamless.x, width));
        self.window(rows, columns)
    }

    /// Without `by` pixels on each side whose edge meets another.
    pub(crate) fn without_surroundings(&self, by: usize) -> Result<Self> {
        let (_, _, height, width) = self.dims();
        let span = |meets: bool, length: usize| match meets {
            true => (by, length.saturating_sub(2 * by)),
            false => (0, length),
        };
        let (rows, columns) = (span(self.seamless.y, height), span(self.seamless.x, width));
        self.window(rows, columns)
    }

    /// So many rows and columns from a first one, counted on from the beginning where the picture ends.
    fn window(&self, rows: (usize, usize), columns: (usize, usize)) -> Result<Self> {
        let (values, dims) = match &self.data {
            MapData::Device(tensor) => {
                let places = |(first, count): (usize, usize), length: usize| {
                    let places: Vec<u32> = (first..first + count).map(|at| (at % length) as u32).collect();
                    Tensor::new(places, tensor.device())
                };
                let (_, _, height, width) = self.dims();
                let taken = tensor.index_select(&places(rows, height)?, 2)?;
                let taken = taken.index_select(&places(columns, width)?, 3)?;
                return Ok(self.with_data(MapData::Device(taken)));
            }
            MapData::Cpu { values, dims } => (values, *dims),
        };
        let values = match values {
            Array::F32(values) => Array::F32(window(values, dims, rows, columns)),
            Array::Bf16(values) => Array::Bf16(window(values, dims, rows, columns)),
        };
        let [batch, _, _, channels] = dims;
        Ok(self.with_data(MapData::Cpu { values, dims: [batch, rows.1, columns.1, channels] }))
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

/// Part of channels-last pictures of `[batch, height, width, channels]`: so many rows and columns from a first one, counted
/// on from the beginning where the picture ends.
fn window<T: Poolable>(
    values: &[T],
    [batch, height, width, channels]: [usize; 4],
    (first_row, rows): (usize, usize),
    (first_column, columns): (usize, usize),
) -> Arc<Pooled<T>> {
    let line_len = columns * channels;
    let mut taken = Pooled::new(batch * rows * line_len);
    taken.par_chunks_mut(line_len.max(1)).enumerate().for_each(|(line, output)| {
        let (image, row) = (line / rows, (first_row + line % rows) % height);
        let from = &values[(image * height + row) * width * channels..][..width * channels];
        let mut column = first_column % width;
        let mut output = output;
        // Piece by piece: up to the end of the line, then on from its beginning.
        while !output.is_empty() {
            let count = (output.len() / channels).min(width - column);
            let (piece, rest) = std::mem::take(&mut output).split_at_mut(count * channels);
            piece.copy_from_slice(&from[column * channels..][..count * channels]);
            (output, column) = (rest, 0);
        }
    });
    Arc::new(taken)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// A picture whose values say where they stand: row, then column.
    fn map(height: usize, width: usize, seamless: Seamless) -> FeatureMap {
        let values: Vec<f32> = (0..height * width).map(|i| (i / width * 10 + i % width) as f32).collect();
        let tensor = Tensor::from_vec(values, (1, 1, height, width), &Device::Cpu).unwrap();
        FeatureMap::from_nchw(&tensor).unwrap().with_seamless(seamless)
    }

    fn rows(map: &FeatureMap) -> Vec<Vec<f32>> {
        map.to_nchw().unwrap().squeeze(0).unwrap().squeeze(0).unwrap().to_vec2().unwrap()
    }

    #[test]
    fn the_other_side_follows_where_edges_meet() {
        let both = map(2, 3, Seamless { x: true, y: true }).surrounded(1).unwrap();
        assert_eq!(rows(&both)[0], [12.0, 10.0, 11.0, 12.0, 10.0]);
        assert_eq!(rows(&both)[1], [2.0, 0.0, 1.0, 2.0, 0.0]);
        assert_eq!(rows(&both)[3], rows(&both)[1], "below the last row comes the first");
        assert_eq!(rows(&map(2, 3, Seamless { x: true, y: false }).surrounded(1).unwrap()).len(), 2);
        assert_eq!(
            rows(&map(2, 3, Seamless { x: false, y: true }).surrounded(1).unwrap())[0],
            [10.0, 11.0, 12.0]
        );
    }

    #[test]
    fn surroundings_come_off_again() {
        for seamless in [(false, true), (true, false), (true, true)].map(|(x, y)| Seamless { x, y }) {
            for (height, width, by) in [(1, 1, 2), (2, 3, 1), (3, 5, 4), (4, 2, 9)] {
                let plain = map(height, width, seamless);
                let back = plain.surrounded(by).unwrap().without_surroundings(by).unwrap();
                assert_eq!(rows(&back), rows(&plain), "{height} x {width} by {by}, {seamless:?}");
            }
        }
    }
}
