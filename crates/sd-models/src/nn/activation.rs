//! Activation functions by the names that configurations use.

use candle_core::Tensor;

use crate::Result;

/// An element-wise function between layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`; `silu` or `swish`.
    Silu,
    /// The exact GELU, with the error function; `gelu`.
    Gelu,
    /// `x * sigmoid(1.702 x)`; `quick_gelu`, of the first CLIP models.
    QuickGelu,
}

impl Activation {
    /// The function that a configuration calls `name`, if it is one of these.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "silu" | "swish" => Some(Self::Silu),
            "gelu" => Some(Self::Gelu),
            "quick_gelu" => Some(Self::QuickGelu),
            _ => None,
        }
    }

    /// The same function among the CPU kernels.
    pub(super) fn kernel(self) -> sd_kernels::Activation {
        match self {
            Self::Silu => sd_kernels::Activation::Silu,
            Self::Gelu => sd_kernels::Activation::Gelu,
            Self::QuickGelu => sd_kernels::Activation::QuickGelu,
        }
    }

    /// The function of every element.
    ///
    /// # Errors
    /// Device errors.
    pub fn apply(self, input: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Silu => input.silu()?,
            Self::Gelu => input.gelu_erf()?,
            Self::QuickGelu => (input * candle_nn::ops::sigmoid(&(input * 1.702)?)?)?,
        })
    }
}
