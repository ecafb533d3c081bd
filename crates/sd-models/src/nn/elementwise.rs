//! What networks without norms do between convolutions: ReLU and its leaky form, scaled residuals, and the pixels of a
//! square as channels.

use std::sync::Arc;

use candle_core::Tensor;
use rayon::prelude::*;

use super::FeatureMap;
use super::array::{Array, Format, f32_values};
use super::feature_map::MapData;
use super::pool::Pooled;
use super::sequence::mixed_devices;
use crate::Result;

/// Values that one task goes through.
const CHUNK: usize = 16 * 1024;

impl FeatureMap {
    /// Every positive value as it is, and `slope` times every other one; 0 is ReLU. In place where nobody else has
    /// the values.
    ///
    /// # Errors
    /// Device errors.
    pub fn leaky_relu(self, slope: f32) -> Result<Self> {
        let seamless = self.seamless;
        let (values, dims) = match self.data {
            MapData::Cpu { values, dims } => (values, dims),
            MapData::Device(tensor) => {
                let positive = tensor.relu()?;
                let activated = match slope {
                    0.0 => positive,
                    slope => (positive - (tensor.neg()?.relu()? * f64::from(slope))?)?,
                };
                return Ok(Self { data: MapData::Device(activated), seamless });
            }
        };
        let mut values = owned(values)?;
        // Not a number stays what it is: the run reports it.
        let activate = |value: &mut f32| *value = if *value <= 0.0 { slope * *value } else { *value };
        values.par_chunks_mut(CHUNK).for_each(|chunk| chunk.iter_mut().for_each(activate));
        Ok(Self { data: MapData::Cpu { values: Array::F32(Arc::new(values)), dims }, seamless })
    }

    /// `scale` times every value, plus the one of `other` at its place.
    ///
    /// # Errors
    /// When the shapes differ, or on device errors.
    pub fn scaled_plus(self, scale: f32, other: &Self) -> Result<Self> {
        if self.dims() != other.dims() {
            let message = format!("{:?} and {:?} cannot be added", self.dims(), other.dims());
            return Err(candle_core::Error::Msg(message).into());
        }
        let seamless = self.seamless;
        let (values, dims, other) = match (self.data, &other.data) {
            (MapData::Cpu { values, dims }, MapData::Cpu { values: other, .. }) => (values, dims, other),
            (MapData::Device(tensor), MapData::Device(other)) => {
                let sum = ((tensor * f64::from(scale))? + other)?;
                return Ok(Self { data: MapData::Device(sum), seamless });
            }
            _ => return Err(mixed_devices()),
        };
        let mut values = owned(values)?;
        let other = other.to_format(Format::F32)?;
        let chunks = values.par_chunks_mut(CHUNK).zip(f32_values(&other).unwrap_or(&[]).par_chunks(CHUNK));
        chunks.for_each(|(sum, other)| sum.iter_mut().zip(other).for_each(|(a, b)| *a = *a * scale + b));
        Ok(Self { data: MapData::Cpu { values: Array::F32(Arc::new(values)), dims }, seamless })
    }
}

/// The values in f32, to be changed; a copy only if somebody else has them too.
fn owned(values: Array) -> Result<Pooled<f32>> {
    let Array::F32(values) = values.to_format(Format::F32)? else { return Err(mixed_devices()) };
    Ok(Arc::try_unwrap(values).unwrap_or_else(|shared| {
        let mut copy = Pooled::<f32>::new(shared.len());
        copy.copy_from_slice(&shared);
        copy
    }))
}

/// Every square of `factor` x `factor` pixels as one pixel of `factor * factor` times the channels (pixel-unshuffle):
/// channel `c` becomes the channels from `c * factor * factor` on, row by row of the square.
///
/// # Errors
/// When `factor` does not divide height and width, or on device errors.
pub fn pixel_unshuffle(pixels: &Tensor, factor: usize) -> Result<Tensor> {
    let (batch, channels, height, width) = pixels.dims4()?;
    let (rows, columns) = (height / factor.max(1), width / factor.max(1));
    let squares = pixels.reshape(vec![batch, channels, rows, factor, columns, factor])?;
    let squares = squares.permute(vec![0, 1, 3, 5, 2, 4])?.contiguous()?;
    Ok(squares.reshape((batch, channels * factor * factor, rows, columns))?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn map(values: &[f32]) -> FeatureMap {
        let tensor = Tensor::from_slice(values, (1, 2, 1, values.len() / 2), &Device::Cpu).unwrap();
        FeatureMap::from_nchw(&tensor).unwrap()
    }

    fn values(map: &FeatureMap) -> Vec<f32> {
        map.to_nchw().unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn negative_values_are_scaled_and_others_kept() {
        let input = map(&[-2.0, 3.0, 0.0, -0.5]);
        assert_eq!(values(&input.clone().leaky_relu(0.0).unwrap()), [0.0, 3.0, 0.0, 0.0]);
        assert_eq!(values(&input.clone().leaky_relu(0.2).unwrap()), [-0.4, 3.0, 0.0, -0.1]);
        assert_eq!(values(&input), [-2.0, 3.0, 0.0, -0.5], "who shares the values sees no change");
        assert!(values(&map(&[f32::NAN, 1.0]).leaky_relu(0.2).unwrap())[0].is_nan());
    }

    #[test]
    fn residuals_are_added_at_their_places() {
        let sum = map(&[1.0, 2.0, 3.0, 4.0]).scaled_plus(0.5, &map(&[10.0, 20.0, 30.0, 40.0])).unwrap();
        assert_eq!(values(&sum), [10.5, 21.0, 31.5, 42.0]);
        assert!(map(&[1.0, 2.0]).scaled_plus(1.0, &map(&[1.0; 4])).is_err());
    }

    /// What torch's `pixel_unshuffle` gives.
    #[test]
    fn squares_become_channels() {
        let pixels = Tensor::arange(0f32, 16.0, &Device::Cpu).unwrap().reshape((1, 1, 4, 4)).unwrap();
        let squares = pixel_unshuffle(&pixels, 2).unwrap();
        assert_eq!(squares.dims(), [1, 4, 2, 2]);
        let values: Vec<f32> = squares.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(values, [0., 2., 8., 10., 1., 3., 9., 11., 4., 6., 12., 14., 5., 7., 13., 15.]);
        assert!(pixel_unshuffle(&pixels, 3).is_err());
    }
}
