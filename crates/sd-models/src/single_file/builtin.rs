//! The configurations of the known families, for files that carry none. They are those of the published folders.

use serde_json::{Value, json};

use crate::clip::ClipTextConfig;

/// A family of checkpoints in the original naming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Stable Diffusion 1.x: one CLIP-L.
    Sd1,
    /// Stable Diffusion 2.x: OpenCLIP-H.
    Sd2,
    /// Stable Diffusion XL: CLIP-L and OpenCLIP-bigG.
    Sdxl,
    /// The refiner of SDXL: OpenCLIP-bigG alone, from pictures or from what SDXL began.
    SdxlRefiner,
}

/// What the UNet was trained to predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// The velocity.
    V,
}

impl Prediction {
    /// As `scheduler_config.json` writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::V => "v_prediction",
        }
    }
}

impl Family {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sd1 => "SD 1.x",
            Self::Sd2 => "SD 2.x",
            Self::Sdxl => "SDXL",
            Self::SdxlRefiner => "SDXL refiner",
        }
    }

    /// The text of the configuration that a folder of the family's ordinary model has under `file`.
    pub fn config(self, file: &str) -> Option<&'static str> {
        Some(match (self, file) {
            (Self::Sd1, "model_index.json") => include_str!("configs/sd15.index.json"),
            (Self::Sd2, "model_index.json") => include_str!("configs/sd21.index.json"),
            (Self::Sdxl, "model_index.json") => include_str!("configs/sdxl.index.json"),
            (Self::SdxlRefiner, "model_index.json") => include_str!("configs/refiner.index.json"),
            (Self::Sd1 | Self::Sdxl, "text_encoder/config.json") => include_str!("configs/clip_l.json"),
            (Self::Sd2, "text_encoder/config.json") => include_str!("configs/open_clip_h.json"),
            (Self::Sdxl | Self::SdxlRefiner, "text_encoder_2/config.json") => {
                include_str!("configs/open_clip_big_g.json")
            }
            (Self::Sd1, "unet/config.json") => include_str!("configs/sd15.unet.json"),
            (Self::Sd2, "unet/config.json") => include_str!("configs/sd21.unet.json"),
            (Self::Sdxl, "unet/config.json") => include_str!("configs/sdxl.unet.json"),
            (Self::SdxlRefiner, "unet/config.json") => include_str!("configs/refiner.unet.json"),
            (Self::Sd1, "vae/config.json") => include_str!("configs/sd15.vae.json"),
            (Self::Sd2, "vae/config.json") => include_str!("configs/sd21.vae.json"),
            (Self::Sdxl | Self::SdxlRefiner, "vae/config.json") => include_str!("configs/sdxl.vae.json"),
            (Self::Sd1, "scheduler/scheduler_config.json") => include_str!("configs/sd15.scheduler.json"),
            (Self::Sd2, "scheduler/scheduler_config.json") => include_str!("configs/sd21.scheduler.json"),
            (Self::Sdxl | Self::SdxlRefiner, "scheduler/scheduler_config.json") => {
                include_str!("configs/sdxl.scheduler.json")
            }
            _ => return None,
        })
    }

    /// Every file that [`Family::config`] knows.
    pub(crate) const FILES: [&'static str; 6] = [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder_2/config.json",
        "unet/config.json",
        "vae/config.json",
    ];

    /// As [`Family::config`], for the variant of the family that a checkpoint was found to be.
    pub(super) fn config_of(self, file: &str, in_channels: usize, prediction: Prediction) -> Option<Vec<u8>> {
        let text = self.config(file)?;
        let mut config: Value = serde_json::from_str(text).ok()?;
        match file {
            "model_index.json" if in_channels != 4 => {
                config["_class_name"] = match self {
                    Self::Sdxl | Self::SdxlRefiner => json!("StableDiffusionXLInpaintPipeline"),
                    _ => json!("StableDiffusionInpaintPipeline"),
                };
            }
            "unet/config.json" => {
                config["in_channels"] = json!(in_channels);
                // Of SD 2.x only those that predict the velocity were trained at 768 pixels.
                if self == Self::Sd2 && prediction == Prediction::Epsilon {
                    config["sample_size"] = json!(64);
                }
            }
            "scheduler/scheduler_config.json" => config["prediction_type"] = json!(prediction.name()),
            _ => {}
        }
        serde_json::to_vec_pretty(&config).ok()
    }

    /// The token that the family's tokenizer in `folder` fills sequences with.
    pub(super) fn pad_token(self, folder: &str) -> &'static str {
        match (self, folder) {
            (Self::Sd2, _) | (Self::Sdxl | Self::SdxlRefiner, "tokenizer_2") => "!",
            _ => "<|endoftext|>",
        }
    }

    /// The folders of its text encoders, each with the folder of its tokenizer.
    pub(super) fn text_encoders(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Sdxl => &[("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")],
            Self::SdxlRefiner => &[("text_encoder_2", "tokenizer_2")],
            _ => &[("text_encoder", "tokenizer")],
        }
    }
}

/// What of a text encoder's configuration decides which tensors it has.
#[derive(Debug, Clone, Copy)]
pub(super) struct TextShape {
    pub layers: usize,
    pub projection: bool,
}

impl From<&ClipTextConfig> for TextShape {
    fn from(config: &ClipTextConfig) -> Self {
        Self { layers: config.num_hidden_layers, projection: config.has_projection() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unet::UnetConfig;
    use crate::vae::VaeConfig;

    #[test]
    fn every_configuration_is_one_that_can_be_loaded() {
        for family in [Family::Sd1, Family::Sd2, Family::Sdxl, Family::SdxlRefiner] {
            for (channels, prediction) in [(4, Prediction::Epsilon), (9, Prediction::V)] {
                for file in Family::FILES {
                    let Some(text) = family.config_of(file, channels, prediction) else {
                        let mut own = family.text_encoders().iter();
                        assert!(!own.any(|(folder, _)| file == format!("{folder}/config.json")), "{file}");
                        continue;
                    };
                    match file {
                        "unet/config.json" => {
                            let config: UnetConfig = serde_json::from_slice(&text).unwrap();
                            config.check(file).unwrap();
                            assert_eq!(config.in_channels, channels);
                        }
                        "vae/config.json" => {
                            serde_json::from_slice::<VaeConfig>(&text).unwrap().check(file).unwrap();
                        }
                        "text_encoder/config.json" | "text_encoder_2/config.json" => {
                            serde_json::from_slice::<ClipTextConfig>(&text).unwrap().check(file).unwrap();
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}
