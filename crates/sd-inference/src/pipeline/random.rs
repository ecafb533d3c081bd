//! Full-size models with random weights: the shapes of the published checkpoints, for measuring speed and memory
//! where no weights are at hand. Their pictures show nothing.

use std::str::FromStr;

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
        match (self, file) {
            (Self::Sdxl, "model_index.json") => {
                r#"{"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": true}"#
            }
            (_, "model_index.json") => r#"{"_class_name": "StableDiffusionPipeline"}"#,
            (Self::Sd15, "text_encoder/config.json") | (Self::Sdxl, "text_encoder/config.json") => CLIP_L,
            (Self::Sd21, "text_encoder/config.json") => OPEN_CLIP_H,
            (Self::Sdxl, "text_encoder_2/config.json") => OPEN_CLIP_BIG_G,
            (Self::Sd15, "unet/config.json") => UNET_SD15,
            (Self::Sd21, "unet/config.json") => UNET_SD21,
            (Self::Sdxl, "unet/config.json") => UNET_SDXL,
            (Self::Sd15, "vae/config.json") => VAE_SD15,
            (Self::Sd21, "vae/config.json") => VAE_SD21,
            (Self::Sdxl, "vae/config.json") => VAE_SDXL,
            (Self::Sd15, "scheduler/scheduler_config.json") => SCHEDULER_SD15,
            (Self::Sd21, "scheduler/scheduler_config.json") => SCHEDULER_SD21,
            (Self::Sdxl, "scheduler/scheduler_config.json") => SCHEDULER_SDXL,
            _ => "null",
        }
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

const CLIP_L: &str = r#"{"vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "hidden_act": "quick_gelu", "eos_token_id": 49407}"#;

const OPEN_CLIP_H: &str = r#"{"vocab_size": 49408, "hidden_size": 1024, "intermediate_size": 4096,
    "num_hidden_layers": 23, "num_attention_heads": 16, "hidden_act": "gelu", "eos_token_id": 49407}"#;

const OPEN_CLIP_BIG_G: &str = r#"{"architectures": ["CLIPTextModelWithProjection"], "vocab_size": 49408,
    "hidden_size": 1280, "projection_dim": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
    "num_attention_heads": 20, "hidden_act": "gelu", "eos_token_id": 49407}"#;

const UNET_SD15: &str = r#"{"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}"#;

const UNET_SD21: &str = r#"{"sample_size": 96, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": true}"#;

const UNET_SDXL: &str = r#"{"sample_size": 128, "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20],
    "use_linear_projection": true, "block_out_channels": [320, 640, 1280], "transformer_layers_per_block": [1, 2, 10],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816}"#;

const VAE_SD15: &str = r#"{"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "sample_size": 512,
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
    "scaling_factor": 0.18215}"#;

const VAE_SD21: &str = r#"{"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "sample_size": 768,
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
    "scaling_factor": 0.18215}"#;

const VAE_SDXL: &str = r#"{"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "sample_size": 1024,
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
    "scaling_factor": 0.13025}"#;

const SCHEDULER_SD15: &str = r#"{"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "skip_prk_steps": true, "steps_offset": 1, "set_alpha_to_one": false}"#;

const SCHEDULER_SD21: &str = r#"{"_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "steps_offset": 1, "set_alpha_to_one": false, "clip_sample": false,
    "prediction_type": "v_prediction"}"#;

const SCHEDULER_SDXL: &str = r#"{"_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "steps_offset": 1, "timestep_spacing": "leading",
    "prediction_type": "epsilon"}"#;
