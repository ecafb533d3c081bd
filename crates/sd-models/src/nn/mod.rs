//! The layers that model definitions are written in.
//!
//! Definitions speak only of these: how a layer is computed - memory layout, precision, fused kernel - is decided
//! here, so that it can change under every model at once. Activations are [`Sequence`]s and [`FeatureMap`]s, whose
//! memory layout and number format are nobody's business but this module's.
//!
//! On the CPU each layer runs on `sd-kernels`; on other devices on candle's operations.

mod activation;
mod array;
mod attention;
mod conv;
mod cpu;
mod elementwise;
mod embedding;
mod feature_map;
mod feature_math;
mod linear;
mod norm;
mod pool;
mod sequence;

pub use activation::Activation;
pub use attention::{Attention, AttentionConfig, Mask};
pub use conv::{Conv2d, ConvConfig, ConvInputs, Padding};
pub use cpu::{cpu_kernels, cpu_kernels_report, cpu_multiplies_bf16};
pub use elementwise::pixel_unshuffle;
pub use embedding::{Embedding, sinusoidal_embedding};
pub use feature_map::{FeatureMap, Seamless};
pub use linear::{GegluLinear, Linear};
pub use norm::{GroupNorm, LayerNorm};
pub use pool::Workspace;
pub use sequence::Sequence;
