//! Full-size models with random weights: the shapes of the published checkpoints, for measuring speed and memory
//! where no weights are at hand. Their pictures show nothing.

use std::str::FromStr;

use sd_models::single_file::Family;

use crate::{Error, Result};

/// A model family whose shapes are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RandomModel {
    /// Stable Diffusion 1.5: 512 pixels, one CLIP-L.
    Sd15,
    /// Stable Diffusion 2.1: 768 pixels, OpenCLIP-H, velocity prediction.
    Sd21,
    /// Stable Diffusion XL: 1024 pixels, CLIP-L and OpenCLIP-bigG.
    Sdxl,
}

impl RandomModel {
    /// Every one of them.
    pub const ALL: [Self; 3] = [Self::Sd15, Self::Sd21, Self::Sdxl];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sd15 => "sd15",
            Self::Sd21 => "sd21",
            Self::Sdxl => "sdxl",
        }
    }

    /// The text of the configuration that the diffusers folder of this model has under `file`.
    pub(super) fn config(self, file: &str) -> &'static str {
        let family = match self {
            Self::Sd15 => Family::Sd1,
            Self::Sd21 => Family::Sd2,
            Self::Sdxl => Family::Sdxl,
        };
        family.config(file).unwrap_or("null")
    }

    /// Whether the folder of this model has `file`.
    pub(super) fn has(self, file: &str) -> bool {
        self.config(file) != "null"
    }
}

impl RandomModel {
    /// The memory that the weights of the part in `folder` take at `value` bytes a value. Embedding tables stay f32.
    pub(super) fn loaded_bytes(self, folder: &str, value: usize) -> u64 {
        // Numbers of parameters, and those of the tables among them: counted by diffusers 0.42.1 and transformers
        // 5.23.0 on models of these configurations.
        let (all, tables): (u64, u64) = match (self, folder) {
            (Self::Sd15 | Self::Sdxl, "text_encoder") => (123_060_480, (49_408 + 77) * 768),
            (Self::Sd21, "text_encoder") => (340_387_840, (49_408 + 77) * 1024),
            (Self::Sdxl, "text_encoder_2") => (694_659_840, (49_408 + 77) * 1280),
            (Self::Sd15, "unet") => (859_520_964, 0),
            (Self::Sd21, "unet") => (865_910_724, 0),
            (Self::Sdxl, "unet") => (2_567_463_684, 0),
            (_, "vae") => (83_653_863, 0),
            _ => (0, 0),
        };
        (all - tables) * value as u64 + tables * 4
    }
}

impl FromStr for RandomModel {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|model| model.name() == name).ok_or_else(|| Error::InvalidRequest {
            field: "random",
            value: format!("`{name}`"),
            limit: "one of sd15, sd21, sdxl".into(),
        })
    }
}
