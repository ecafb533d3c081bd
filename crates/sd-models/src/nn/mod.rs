//! The layers that model definitions are written in.
//!
//! Definitions speak only of these: how a layer is computed - memory layout, precision, fused kernel - is decided
//! here, so that it can change under every model at once. Sequences are `(batch, length, channels)` tensors;
//! pictures are [`FeatureMap`]s, whose memory layout is nobody's business but this module's.
//!
//! On the CPU each layer runs on `sd-kernels`; on other devices on candle's operations.

mod activation;
mod attention;
mod conv;
mod cpu;
mod embedding;
mod feature_map;
mod linear;
mod norm;

pub use activation::Activation;
pub use attention::{Mask, attention};
pub use conv::{Conv2d, ConvConfig, ConvInputs, Padding};
pub use cpu::{cpu_kernels, cpu_kernels_report};
pub use embedding::{Embedding, sinusoidal_embedding};
pub use feature_map::FeatureMap;
pub use linear::{GegluLinear, Linear};
pub use norm::{GroupNorm, LayerNorm};
