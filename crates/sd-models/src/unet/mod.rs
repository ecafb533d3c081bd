//! The conditional UNet of latent diffusion (Rombach et al., 2022); reference `diffusers.UNet2DConditionModel`.

mod blocks;
mod config;
mod embed;
mod ldm;
mod model;
mod residuals;
mod resnet;
mod transformer;

pub(crate) use blocks::{Condition, DownBlock, MidBlock};
pub use config::UnetConfig;
pub use embed::AddedCondition;
pub(crate) use embed::TimeCondition;
pub(crate) use ldm::ldm_name;
pub use model::{Unet2DConditionModel, UnetInputs};
pub use residuals::Residuals;
pub(crate) use resnet::{ResnetBlock, ResnetConfig};
