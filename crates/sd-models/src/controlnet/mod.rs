//! ControlNets (Zhang, Rao and Agrawala, 2023): a second way down that also sees a picture, and tells the UNet what to
//! add to its states; reference `diffusers.ControlNetModel`.

mod config;
mod hint;
mod model;
mod names;
mod open;

pub use config::ControlNetConfig;
pub use model::{ControlNetModel, Emphasis};
pub use open::OpenedControlNet;
