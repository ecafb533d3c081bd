//! `vae/config.json`.

use serde::Deserialize;

use crate::{Error, Result};

/// Levels at most: a picture of 128 pixels to one latent is far beyond every known model.
const MAX_LEVELS: usize = 8;

/// One number for both sides of a picture, or height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "must be a whole number, or height and width")]
pub enum SampleSize {
    /// A square.
    Side(usize),
    /// Height and width.
    Sides([usize; 2]),
}

/// The configuration of a VAE with the defaults of `diffusers.AutoencoderKL`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct VaeConfig {
    /// Channels of a picture.
    pub in_channels: usize,
    /// Channels of the decoded picture.
    pub out_channels: usize,
    /// `DownEncoderBlock2D` for each level.
    pub down_block_types: Vec<String>,
    /// `UpDecoderBlock2D` for each level.
    pub up_block_types: Vec<String>,
    /// Channels of each level, from the finest.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks in each level (one more in the decoder).
    pub layers_per_block: usize,
    /// The activation's name; `silu`.
    pub act_fn: String,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// Height and width of the pictures it was trained on; how large its tiles are.
    pub sample_size: Option<SampleSize>,
    /// Latents are multiplied by this before diffusion.
    pub scaling_factor: f64,
    /// Subtracted from latents before scaling, where a model has it.
    pub shift_factor: Option<f64>,
    /// Whether half precision overflows in this model.
    pub force_upcast: bool,
    /// Whether a 1x1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1x1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the middle blocks have attention.
    pub mid_block_add_attention: bool,
}

impl Default for VaeConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec!["DownEncoderBlock2D".into()],
            up_block_types: vec!["UpDecoderBlock2D".into()],
            block_out_channels: vec![64],
            layers_per_block: 1,
            act_fn: "silu".into(),
            latent_channels: 4,
            norm_num_groups: 32,
            sample_size: None,
            scaling_factor: 0.18215,
            shift_factor: None,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

impl VaeConfig {
    /// Pixels to one latent along each side: `2^(levels - 1)`.
    pub fn scale_factor(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }

    /// Checks that this crate implements everything that the configuration asks for.
    ///
    /// # Errors
    /// [`Error::UnsupportedConfig`] names the first field that is not.
    pub fn check(&self, file: &str) -> Result<()> {
        let refuse = |field: &str, found: String, supported: &str| {
            Err(Error::UnsupportedConfig {
                file: file.into(),
                field: field.into(),
                found,
                supported: supported.into(),
            })
        };
        let levels = self.block_out_channels.len();
        if levels == 0 || levels > MAX_LEVELS {
            return refuse("block_out_channels", format!("{levels} levels"), "1 to 8 levels");
        }
        for (field, channels) in [
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("latent_channels", self.latent_channels),
            ("block_out_channels", self.block_out_channels.iter().copied().min().unwrap_or(0)),
        ] {
            if channels == 0 {
                return refuse(field, "0".into(), "at least 1");
            }
        }
        for (field, types, known) in [
            ("down_block_types", &self.down_block_types, "DownEncoderBlock2D"),
            ("up_block_types", &self.up_block_types, "UpDecoderBlock2D"),
        ] {
            if types.len() != levels {
                return refuse(
                    field,
                    format!("{} blocks", types.len()),
                    "one for each of block_out_channels",
                );
            }
            if let Some(odd) = types.iter().find(|name| *name != known) {
                return refuse(field, format!("`{odd}`"), known);
            }
        }
        if !matches!(self.act_fn.as_str(), "silu" | "swish") {
            return refuse("act_fn", format!("`{}`", self.act_fn), "silu");
        }
        if self.norm_num_groups == 0 || self.block_out_channels.iter().any(|c| c % self.norm_num_groups != 0)
        {
            return refuse(
                "norm_num_groups",
                self.norm_num_groups.to_string(),
                "a divisor of every level's channels",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_autoencoder_is_refused_by_field() {
        let ok = VaeConfig::default();
        ok.check("vae/config.json").unwrap();
        for (field, config) in [
            ("block_out_channels", VaeConfig { block_out_channels: vec![], ..ok.clone() }),
            ("block_out_channels", VaeConfig { block_out_channels: vec![32; 70], ..ok.clone() }),
            ("block_out_channels", VaeConfig { block_out_channels: vec![0], ..ok.clone() }),
            ("latent_channels", VaeConfig { latent_channels: 0, ..ok.clone() }),
            ("in_channels", VaeConfig { in_channels: 0, ..ok.clone() }),
            ("out_channels", VaeConfig { out_channels: 0, ..ok.clone() }),
            ("norm_num_groups", VaeConfig { norm_num_groups: 0, ..ok.clone() }),
            ("act_fn", VaeConfig { act_fn: "mish".into(), ..ok.clone() }),
        ] {
            let message = config.check("vae/config.json").unwrap_err().to_string();
            assert!(message.contains(&format!("`{field}`")), "{field}: {message}");
        }
    }
}
