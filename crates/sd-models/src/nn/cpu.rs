//! The way from CPU tensors to `sd-kernels` and back.
//!
//! On the CPU every activation is f32 and pictures lie channels-last in memory; bf16 is how weights are stored and,
//! where the machine multiplies it, the precision of products.

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use sd_kernels::{Kernels, Precision};

use crate::{Error, Result};

/// The kernels of this process.
pub(super) fn kernels() -> Kernels {
    sd_kernels::active()
}

/// The name of the CPU kernels in use, such as `avx512`.
pub fn cpu_kernels() -> &'static str {
    kernels().set().name()
}

/// Which CPU kernels are in use and why, in words.
pub fn cpu_kernels_report() -> String {
    sd_kernels::report().to_string()
}

/// How weights of this dtype are packed.
pub(super) fn precision(dtype: DType) -> Precision {
    match dtype {
        DType::BF16 => Precision::Bf16,
        _ => Precision::F32,
    }
}

/// Calls `f` with the values of a CPU tensor in row-major order. Copies only views and other dtypes.
pub(super) fn values<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let tensor = tensor.to_dtype(DType::F32)?.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(data)) = &*storage else {
        return Err(candle_core::Error::Msg("a CPU layer was given a tensor of another device".into()).into());
    };
    let start = layout.start_offset();
    f(&data[start..start + layout.shape().elem_count()])
}

/// [`values`] of a tensor that may be absent.
pub(super) fn optional_values<R>(
    tensor: Option<&Tensor>,
    f: impl FnOnce(Option<&[f32]>) -> Result<R>,
) -> Result<R> {
    match tensor {
        Some(tensor) => values(tensor, |values| f(Some(values))),
        None => f(None),
    }
}

/// A CPU tensor around `values`.
pub(super) fn tensor(values: Vec<f32>, shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape.into(), &Device::Cpu)?)
}

impl From<sd_kernels::KernelError> for Error {
    fn from(error: sd_kernels::KernelError) -> Self {
        Self::Tensor(candle_core::Error::Msg(error.to_string()))
    }
}
