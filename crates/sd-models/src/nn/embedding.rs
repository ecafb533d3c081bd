//! Tables of vectors, and the embedding of timesteps and sizes.

use candle_core::{DType, Device, Tensor};

use crate::{Result, Weights};

/// A table of vectors that is read by row.
#[derive(Debug, Clone)]
pub struct Embedding {
    table: Tensor,
}

impl Embedding {
    /// Loads `weight` `(rows, features)` of this scope.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn load(weights: &Weights, rows: usize, features: usize) -> Result<Self> {
        let weights = weights.with_dtype(weights.activation_dtype());
        weights.layer(None, || Ok(Self { table: weights.tensor("weight", &[rows, features])? }))
    }

    /// The rows of `ids` `(batch, length)`, as `(batch, length, features)`.
    ///
    /// # Errors
    /// When an id is out of range.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let (batch, length) = ids.dims2()?;
        let rows = self.table.index_select(&ids.flatten_all()?, 0)?;
        Ok(rows.reshape((batch, length, self.table.dim(1)?))?)
    }

    /// The number format of the rows.
    pub fn dtype(&self) -> DType {
        self.table.dtype()
    }

    /// The first `length` rows, `(length, features)`.
    ///
    /// # Errors
    /// When the table is shorter.
    pub fn first(&self, length: usize) -> Result<Tensor> {
        Ok(self.table.narrow(0, 0, length)?)
    }
}

/// Sines and cosines of each value at `dim / 2` frequencies, `(values, dim)` in f32.
///
/// Frequencies fall from 1 to 1/10000 (Vaswani et al., 2017), with diffusers' two switches: `flip_sin_to_cos` puts
/// the cosines first, `freq_shift` is subtracted from the count of frequencies in the exponent.
/// Reference: `diffusers.models.embeddings.get_timestep_embedding`.
///
/// # Errors
/// Device errors.
pub fn sinusoidal_embedding(
    values: &[f64],
    dim: usize,
    flip_sin_to_cos: bool,
    freq_shift: f64,
    device: &Device,
) -> Result<Tensor> {
    let half = dim / 2;
    let mut output = Vec::with_capacity(values.len() * dim);
    for &value in values {
        // The reference computes in f32 throughout; doing the same keeps the large angles equal.
        let angles = (0..half).map(|i| {
            let exponent = -(10000f64.ln() as f32) * i as f32 / (half as f64 - freq_shift) as f32;
            value as f32 * exponent.exp()
        });
        let sines = angles.clone().map(f32::sin);
        let cosines = angles.map(f32::cos);
        if flip_sin_to_cos {
            output.extend(cosines.chain(sines));
        } else {
            output.extend(sines.chain(cosines));
        }
        output.extend(std::iter::repeat_n(0f32, dim % 2));
    }
    Ok(Tensor::from_vec(output, (values.len(), dim), &Device::Cpu)?
        .to_dtype(DType::F32)?
        .to_device(device)?)
}
