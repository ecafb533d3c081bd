//! The CPU's kernels and which precision they are given.
//!
//! On the CPU pictures lie channels-last in memory. What a layer adds to or a norm reads is f32; what is only ever
//! multiplied - the output of a norm, queries, keys and values, the inside of a feed-forward - is rounded to bf16
//! once, where it is made, when the weights are bf16 and the machine multiplies that. Without such hardware bf16 is
//! only how weights are stored.

use candle_core::DType;
use sd_kernels::{Kernels, Precision};

use super::array::Format;
use crate::Error;

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

/// Whether the CPU multiplies bf16 itself (AMX), so that bf16 is faster than f32 and not only smaller.
pub fn cpu_multiplies_bf16() -> bool {
    kernels().native_bf16()
}

/// How weights of this dtype are packed.
pub(super) fn precision(dtype: DType) -> Precision {
    match dtype {
        DType::BF16 => Precision::Bf16,
        _ => Precision::F32,
    }
}

/// The format of activations that are only multiplied with weights of this dtype or with each other.
pub(super) fn operands(dtype: DType) -> Format {
    match dtype {
        DType::BF16 if kernels().native_bf16() => Format::Bf16,
        _ => Format::F32,
    }
}

impl From<sd_kernels::KernelError> for Error {
    fn from(error: sd_kernels::KernelError) -> Self {
        Self::Tensor(candle_core::Error::Msg(error.to_string()))
    }
}
