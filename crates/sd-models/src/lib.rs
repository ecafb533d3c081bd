//! Model families of Stable Diffusion: text encoders, UNet and VAE, read from diffusers folders and
//! single-file checkpoints.
//!
//! - [`ModelFiles`] is a folder on disk or compiled into the program, or a [single file](single_file) that looks like
//!   one; [`Weights`] are its named tensors.
//! - [`registry`] tells which model a name means, [`inspect`](mod@inspect) what a file or folder holds, and [`save`] writes
//!   models as folders.
//! - [`clip`], [`unet`] and [`vae`] are the model definitions, driven entirely by the folder's `config.json`s;
//!   [`controlnet`] is what steers a UNet by a picture.
//! - [`lora`] adds low-rank adapters to the weights, and leaves the definitions as they are.
//! - [`nn`] holds the layers that they are written in; how a layer is computed is decided there and nowhere else.
//!
//! ```no_run
//! use candle_core::{DType, Device};
//! use sd_models::{ModelFiles, Weights, vae::AutoencoderKl};
//!
//! # fn main() -> sd_models::Result<()> {
//! let files = ModelFiles::folder("models/demo")?;
//! let weights = Weights::open(&files, "vae", "diffusion_pytorch_model", &Device::Cpu, DType::F32)?;
//! let vae = AutoencoderKl::load(&weights, files.json("vae/config.json")?, "vae/config.json")?;
//! # Ok(())
//! # }
//! ```

mod assembled;
pub mod clip;
pub mod controlnet;
mod error;
pub mod esrgan;
mod files;
pub mod inspect;
pub mod json;
mod layers;
pub mod lora;
mod memory;
pub mod nn;
pub mod registry;
pub mod save;
pub mod single_file;
mod snapshots;
pub mod taesd;
mod tensor_index;
pub mod unet;
pub mod vae;
mod weights;

pub use assembled::AssembledFiles;
pub use error::{Error, Result};
/// How much the CPU kernels have computed, and how much they could.
pub use sd_kernels::{measure_peak, work};

pub use files::{EmbeddedFile, FileBytes, ModelFiles};
pub use layers::Layers;
pub use weights::Weights;

/// Why the CPU kernels that `SD_KERNELS` asks for are not used, if so.
pub fn cpu_kernels_warning() -> Option<String> {
    sd_kernels::report().warning.map(|reason| format!("SD_KERNELS was not followed: {reason}"))
}

/// The accelerators that this program was built for, by their feature names.
pub fn accelerators() -> Vec<&'static str> {
    [
        ("cuda", cfg!(feature = "cuda")),
        ("cudnn", cfg!(feature = "cudnn")),
        ("flash-attn", cfg!(feature = "flash-attn")),
        ("metal", cfg!(feature = "metal")),
        ("accelerate", cfg!(feature = "accelerate")),
    ]
    .into_iter()
    .filter_map(|(name, built)| built.then_some(name))
    .collect()
}
