//! Arithmetic on whole feature maps, where no layer has it fused into its product.

use std::sync::Arc;

use candle_core::Tensor;
use rayon::prelude::*;

use super::array::{Array, Format, f32_values};
use super::feature_map::MapData;
use super::pool::Pooled;
use super::sequence::mixed_devices;
use super::{Activation, FeatureMap, cpu};
use crate::Result;

/// Values that one task goes through.
const CHUNK: usize = 16 * 1024;

impl FeatureMap {
    /// SiLU of every value.
    ///
    /// # Errors
    /// Device errors.
    pub fn silu(&self) -> Result<Self> {
        let (values, dims) = match &self.data {
            MapData::Device(tensor) => return Ok(self.with_data(MapData::Device(tensor.silu()?))),
            MapData::Cpu { values, dims } => (copied(values)?, *dims),
        };
        let mut values = values;
        cpu::kernels().activate::<f32>(Activation::Silu.kernel(), &mut values);
        Ok(self.with_data(MapData::Cpu { values: Array::F32(Arc::new(values)), dims }))
    }

    /// Every value times `factor`.
    ///
    /// # Errors
    /// Device errors.
    pub fn scaled(&self, factor: f32) -> Result<Self> {
        let (mut values, dims) = match &self.data {
            MapData::Device(tensor) => {
                return Ok(self.with_data(MapData::Device((tensor * f64::from(factor))?)));
            }
            MapData::Cpu { values, dims } => (copied(values)?, *dims),
        };
        values.par_chunks_mut(CHUNK).for_each(|chunk| chunk.iter_mut().for_each(|value| *value *= factor));
        Ok(self.with_data(MapData::Cpu { values: Array::F32(Arc::new(values)), dims }))
    }

    /// This map with `other` added to its last samples: to all of them where `other` has as many. Earlier ones stay
    /// as they are, to the bit.
    ///
    /// # Errors
    /// When `other` has more samples or another size, or on device errors.
    pub fn add_to_last(&self, other: &Self) -> Result<Self> {
        let ((batch, channels, height, width), (last, ..)) = (self.dims(), other.dims());
        if last > batch || other.dims() != (last, channels, height, width) {
            let message = format!("{:?} cannot be added to the last of {:?}", other.dims(), self.dims());
            return Err(candle_core::Error::Msg(message).into());
        }
        match (&self.data, &other.data) {
            (MapData::Cpu { values, dims }, MapData::Cpu { values: other, .. }) => {
                let mut sum = copied(values)?;
                let other = other.to_format(Format::F32)?;
                let other = f32_values(&other).unwrap_or(&[]);
                let first = sum.len() - other.len();
                let chunks = sum[first..].par_chunks_mut(CHUNK).zip(other.par_chunks(CHUNK));
                chunks.for_each(|(sum, other)| sum.iter_mut().zip(other).for_each(|(a, b)| *a += b));
                Ok(self.with_data(MapData::Cpu { values: Array::F32(Arc::new(sum)), dims: *dims }))
            }
            (MapData::Device(tensor), MapData::Device(other)) => {
                let first = batch - last;
                let sum = (tensor.narrow(0, first, last)? + other)?;
                let sum = match first {
                    0 => sum,
                    _ => Tensor::cat(&[&tensor.narrow(0, 0, first)?, &sum], 0)?,
                };
                Ok(self.with_data(MapData::Device(sum)))
            }
            _ => Err(mixed_devices()),
        }
    }

    /// `batch` samples, all of them this map's only one; unchanged where it has as many already.
    ///
    /// # Errors
    /// When it has another number of samples, or on device errors.
    pub fn repeated(&self, batch: usize) -> Result<Self> {
        let (own, ..) = self.dims();
        if own == batch {
            return Ok(self.clone());
        }
        if own != 1 {
            let message = format!("{own} samples cannot be repeated to {batch}");
            return Err(candle_core::Error::Msg(message).into());
        }
        match &self.data {
            MapData::Device(tensor) => Ok(self.with_data(MapData::Device(tensor.repeat((batch, 1, 1, 1))?))),
            MapData::Cpu { values, dims: [_, height, width, channels] } => {
                let wide = values.to_format(Format::F32)?;
                let one = f32_values(&wide).unwrap_or(&[]);
                let mut repeated = Pooled::<f32>::new(batch * one.len());
                repeated.par_chunks_mut(one.len().max(1)).for_each(|sample| sample.copy_from_slice(one));
                let dims = [batch, *height, *width, *channels];
                Ok(self.with_data(MapData::Cpu { values: Array::F32(Arc::new(repeated)), dims }))
            }
        }
    }
}

/// The values in f32, to be changed.
fn copied(values: &Array) -> Result<Pooled<f32>> {
    let wide = values.to_format(Format::F32)?;
    let wide = f32_values(&wide).unwrap_or(&[]);
    let mut copy = Pooled::<f32>::new(wide.len());
    copy.copy_from_slice(wide);
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn map(batch: usize, seed: f32) -> (Tensor, FeatureMap) {
        let values: Vec<f32> =
            (0..batch * 3 * 5 * 7).map(|i| ((i as f32 + seed) * 0.37).sin() * 3.0).collect();
        let tensor = Tensor::from_vec(values, (batch, 3, 5, 7), &Device::Cpu).unwrap();
        let map = FeatureMap::from_nchw(&tensor).unwrap();
        (tensor, map)
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn assert_same(map: &FeatureMap, tensor: &Tensor) {
        assert_eq!(values(&map.to_nchw().unwrap()), values(tensor));
    }

    #[test]
    fn sums_and_multiples_are_those_of_tensors() {
        let ((a, a_map), (b, b_map)) = (map(2, 0.0), map(2, 11.0));
        assert_same(&a_map.add_to_last(&b_map).unwrap(), &(&a + &b).unwrap());
        assert_same(&a_map.scaled(0.3).unwrap(), &(&a * f64::from(0.3f32)).unwrap());
        let found = values(&a_map.silu().unwrap().to_nchw().unwrap());
        for (found, x) in found.into_iter().zip(values(&a)) {
            let expected = x / (1.0 + (-x).exp());
            assert!((found - expected).abs() < 1e-6, "{found}, {expected}");
        }
    }

    #[test]
    fn fewer_samples_are_added_to_the_last() {
        let ((a, a_map), (b, b_map)) = (map(3, 0.0), map(1, 5.0));
        let sum = a_map.add_to_last(&b_map).unwrap().to_nchw().unwrap();
        let part = |from, count| sum.narrow(0, from, count).unwrap();
        assert_eq!(values(&part(0, 2)), values(&a.narrow(0, 0, 2).unwrap()));
        assert_eq!(values(&part(2, 1)), values(&(a.narrow(0, 2, 1).unwrap() + b).unwrap()));
        assert!(b_map.add_to_last(&a_map).is_err(), "more samples than there are");
    }

    #[test]
    fn one_sample_becomes_several() {
        let ((a, a_map), (_, three)) = (map(1, 0.0), map(3, 0.0));
        assert_same(&a_map.repeated(3).unwrap(), &a.repeat((3, 1, 1, 1)).unwrap());
        assert_eq!(three.repeated(3).unwrap().dims().0, 3);
        assert!(three.repeated(2).is_err());
    }
}
