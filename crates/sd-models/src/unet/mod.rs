//! The conditional UNet of latent diffusion (Rombach et al., 2022); reference `diffusers.UNet2DConditionModel`.

mod blocks;
mod config;
mod model;
mod resnet;
mod transformer;

pub use config::UnetConfig;
pub use model::{AddedCondition, Unet2DConditionModel, UnetInputs};
pub(crate) use resnet::{ResnetBlock, ResnetConfig};
