//! Low-rank adapters (Hu et al., 2021, "LoRA") and their form for convolutions (LoCon).
//!
//! An adapter file holds two thin matrices for each layer that it changes; the layer's weight becomes
//! `W + scale * alpha / rank * up * down`. Here the sum is made once, when a set of adapters is chosen: [`Targets`] finds
//! the layers that a file means and gives a [`Patch`] for each part of the model, [`Weights`](crate::Weights) adds it to what the files
//! hold while a layer is loaded. So a step costs what it costs without adapters, and a layer without them is, bit for
//! bit, the one from the file.

mod file;
mod names;
mod patch;
mod scaling;
mod targets;

pub use file::Lora;
pub use patch::Patch;
pub(crate) use patch::added;
pub use targets::{Patches, Targets};
