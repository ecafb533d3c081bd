//! Arrays of activations on the CPU, in f32 or bf16, and how layers read and write them.

use std::sync::Arc;

use candle_core::{CpuStorage, DType, Device, Shape, Storage, Tensor};
use half::bf16;

use super::cpu;
use super::pool::Pooled;
use crate::Result;

/// The number format of an [`Array`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    F32,
    Bf16,
}

/// Numbers in memory order, shared when cloned.
#[derive(Debug, Clone)]
pub(super) enum Array {
    F32(Arc<Pooled<f32>>),
    Bf16(Arc<Pooled<bf16>>),
}

/// Evaluates an expression with an array's values, `&[f32]` or `&[bf16]`, bound to a name.
macro_rules! read {
    ($array:expr, $values:ident => $body:expr) => {
        match $array {
            $crate::nn::array::Array::F32(values) => {
                let $values: &[f32] = values;
                $body
            }
            $crate::nn::array::Array::Bf16(values) => {
                let $values: &[half::bf16] = values;
                $body
            }
        }
    };
}

/// Makes an array of a format and length. The expression gets its values, `&mut [f32]` or `&mut [bf16]`, must write
/// all of them, and may fail.
macro_rules! write {
    ($format:expr, $len:expr, $values:ident => $body:expr) => {
        match $format {
            $crate::nn::array::Format::F32 => {
                let mut output = $crate::nn::pool::Pooled::<f32>::new($len);
                let $values: &mut [f32] = &mut output;
                $body?;
                $crate::nn::array::Array::F32(std::sync::Arc::new(output))
            }
            $crate::nn::array::Format::Bf16 => {
                let mut output = $crate::nn::pool::Pooled::<half::bf16>::new($len);
                let $values: &mut [half::bf16] = &mut output;
                $body?;
                $crate::nn::array::Array::Bf16(std::sync::Arc::new(output))
            }
        }
    };
}

pub(super) use {read, write};

/// The values of an f32 array.
pub(super) fn f32_values(array: &Array) -> Option<&[f32]> {
    f32::slice(array)
}

/// A slice of the type that a `write!` expression writes, from an array that may have another one.
pub(super) trait Same: Sized {
    fn slice(array: &Array) -> Option<&[Self]>;
}

impl Same for f32 {
    fn slice(array: &Array) -> Option<&[Self]> {
        match array {
            Array::F32(values) => Some(values),
            Array::Bf16(_) => None,
        }
    }
}

impl Same for bf16 {
    fn slice(array: &Array) -> Option<&[Self]> {
        match array {
            Array::Bf16(values) => Some(values),
            Array::F32(_) => None,
        }
    }
}

/// The residual in the format of `_output`, which it is added to.
pub(super) fn residual_for<'a, T: Same>(residual: Option<&'a Array>, _output: &[T]) -> Option<&'a [T]> {
    residual.and_then(T::slice)
}

impl Array {
    /// Which format the values have.
    pub(super) fn format(&self) -> Format {
        match self {
            Self::F32(_) => Format::F32,
            Self::Bf16(_) => Format::Bf16,
        }
    }

    /// The same values in `format`.
    pub(super) fn to_format(&self, format: Format) -> Result<Self> {
        if self.format() == format {
            return Ok(self.clone());
        }
        Ok(
            read!(self, values => write!(format, values.len(), output => cpu::kernels().convert(values, output))),
        )
    }

    /// The values of a CPU tensor in row-major order, as f32.
    pub(super) fn from_tensor(tensor: &Tensor) -> Result<Self> {
        let tensor = tensor.to_dtype(DType::F32)?.contiguous()?;
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cpu(CpuStorage::F32(data)) = &*storage else {
            let message = "a CPU layer was given a tensor of another device";
            return Err(candle_core::Error::Msg(message.into()).into());
        };
        let data = &data[layout.start_offset()..][..layout.shape().elem_count()];
        let mut values = Pooled::<f32>::new(data.len());
        values.copy_from_slice(data);
        Ok(Self::F32(Arc::new(values)))
    }

    /// A CPU tensor with a copy of the values, in f32.
    pub(super) fn to_tensor(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        let wide = self.to_format(Format::F32)?;
        let values = f32::slice(&wide).unwrap_or(&[]);
        Ok(Tensor::from_slice(values, shape.into(), &Device::Cpu)?)
    }
}
