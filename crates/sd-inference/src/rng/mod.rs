//! Noise that other programs can reproduce.
//!
//! The same seed gives the same picture only if the noise is the same, value for value and in the same order.
//! [`TorchCpu`] draws what `torch.Generator("cpu").manual_seed(seed)` draws and is the default; [`Philox`] draws what
//! a CUDA generator draws for one latent, which is what A1111-style front ends show as their seed.
//!
//! ```
//! use sd_inference::rng::{NoiseKind, NoiseSource};
//!
//! let mut noise = NoiseKind::TorchCpu.source(0);
//! let mut latents = vec![0f32; 16];
//! noise.fill_normal(&mut latents);
//! assert!((latents[0] - -1.125_839_8).abs() < 1e-6); // torch.randn(16, generator=...)[0]
//! ```

mod batch;
mod brownian;
mod mt19937;
mod philox;
mod torch_cpu;
mod vector_math;

use std::fmt;
use std::str::FromStr;

use candle_core::{Device, Tensor};

pub use batch::BatchNoise;
pub(crate) use brownian::BrownianTree;
pub use mt19937::Mt19937;
pub use philox::{Philox, philox4x32_10};
pub use torch_cpu::TorchCpu;

/// A stream of standard normal values that belongs to one generation.
///
/// One call is one `torch.randn`: a source may give other values for one call of 32 than for two calls of 16, just
/// as the generators that it follows do. Draw in the shapes and the order in which the reference draws.
pub trait NoiseSource: Send {
    /// Fills `out` with the values of one draw, in row-major order.
    fn fill_normal(&mut self, out: &mut [f32]);

    /// The generator and the seed of each image, which samplers make Brownian paths of. `None` where the source cannot tell:
    /// they draw plain normals then.
    fn seeds(&self) -> Option<Vec<(NoiseKind, u64)>> {
        None
    }

    /// One draw of this shape as an f32 tensor on `device`; the values are made on the CPU.
    fn randn(&mut self, shape: &[usize], device: &Device) -> candle_core::Result<Tensor> {
        let mut values = vec![0f32; shape.iter().product()];
        self.fill_normal(&mut values);
        Tensor::from_vec(values, shape, device)
    }
}

impl<N: NoiseSource + ?Sized> NoiseSource for Box<N> {
    fn fill_normal(&mut self, out: &mut [f32]) {
        (**self).fill_normal(out);
    }

    fn seeds(&self) -> Option<Vec<(NoiseKind, u64)>> {
        (**self).seeds()
    }
}

/// The generators that a request can name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NoiseKind {
    /// `torch_cpu`: what `torch.Generator("cpu")` draws. The default.
    #[default]
    TorchCpu,
    /// `philox`: what a CUDA generator draws for one latent.
    Philox,
}

impl NoiseKind {
    /// Every kind, in the order in which help texts list them.
    pub const ALL: [Self; 2] = [Self::TorchCpu, Self::Philox];

    /// The name in requests and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::TorchCpu => "torch_cpu",
            Self::Philox => "philox",
        }
    }

    /// A fresh source of this kind.
    pub fn source(self, seed: u64) -> Box<dyn NoiseSource> {
        match self {
            Self::TorchCpu => Box::new(TorchCpu::new(seed)),
            Self::Philox => Box::new(Philox::new(seed)),
        }
    }
}

impl fmt::Display for NoiseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A generator name that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rng {value:?} is unknown; choose one of torch_cpu, philox")]
pub struct UnknownNoiseKind {
    /// The name as it was given.
    pub value: String,
}

impl FromStr for NoiseKind {
    type Err = UnknownNoiseKind;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == value);
        found.ok_or_else(|| UnknownNoiseKind { value: value.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_are_refused() {
        for kind in NoiseKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        let message = "cuda".parse::<NoiseKind>().unwrap_err().to_string();
        assert_eq!(message, "rng \"cuda\" is unknown; choose one of torch_cpu, philox");
    }
}
