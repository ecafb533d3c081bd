//! The autoencoder between pixels and latents (Kingma and Welling, 2013; Esser et al., 2021); reference
//! `diffusers.AutoencoderKL`.

mod blocks;
mod config;
mod decoder;
mod encoder;
mod model;
mod tiling;

pub use config::{SampleSize, VaeConfig};
pub use model::{AutoencoderKl, Canvas, LatentDistribution};
pub use tiling::Tiles;
