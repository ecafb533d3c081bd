//! CPU kernels for diffusion models behind safe functions.
//!
//! Matrix products, convolution, attention, normalisation and activations over **channels-last** data in f32
//! or bf16. The instruction set is chosen once ([`active`]; `SD_KERNELS=scalar|avx2|avx512|amx` forces one,
//! [`report`] explains the choice), weights are packed once at load ([`PackedLinear`], [`PackedConv2d`]), and
//! bias, activation, gate, residual and time embedding are fused into the products' epilogues.
//!
//! Work is split over rayon's current pool: run inside `ThreadPool::install` to choose the threads. Results
//! depend neither on the number of threads nor on what else is in the batch: two images in one batch give, bit
//! for bit, what each gives alone.
//!
//! ```
//! use sd_kernels::{Activation, ConvEpilogue, ConvGeometry, ImageShape, PackedConv2d, Precision, active};
//!
//! // A 3x3 convolution from 4 to 8 channels, SiLU fused, on an 8x8 image.
//! let weight = vec![0.01f32; 8 * 4 * 3 * 3];
//! let geometry = ConvGeometry::padded(1);
//! let conv =
//!     PackedConv2d::new(active(), (&weight[..]).into(), [8, 4, 3, 3], None, geometry, Precision::F32)?;
//! let shape = ImageShape { images: 1, height: 8, width: 8, channels: 4 };
//! let input = vec![1f32; shape.len()];
//! let mut output = vec![0f32; conv.output_shape(shape)?.len()];
//! let epilogue = ConvEpilogue { activation: Activation::Silu, ..Default::default() };
//! conv.forward(&input, shape, &mut output, epilogue)?;
//! # Ok::<(), sd_kernels::KernelError>(())
//! ```

mod activation;
mod amx;
mod attention;
mod buffer;
mod conv;
mod cpu;
mod element;
mod error;
mod gemm;
mod linear;
mod norm;
mod parallel;
mod simd;
mod winograd;
mod work;

pub use activation::Activation;
pub use attention::{AttentionShape, Mask, Rows};
pub use buffer::Buffer;
pub use conv::{ConvEpilogue, ConvGeometry, ImageShape, PackedConv2d, Padding};
pub use cpu::{KernelSet, Kernels, Report, active, report};
pub use element::Element;
pub use error::KernelError;
pub use gemm::Precision;
pub use gemm::pack::Weights;
pub use linear::{Epilogue, PackedLinear};
pub use norm::NormParams;
pub use work::{measure_peak, work};
