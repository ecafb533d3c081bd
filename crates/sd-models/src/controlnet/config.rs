//! A ControlNet's `config.json`, or what the UNet and the shapes of its tensors say instead.

use serde::Deserialize;
use serde_json::Value;

use crate::unet::UnetConfig;
use crate::{Error, Result, Weights};

/// The configuration of a ControlNet with the defaults of `diffusers.ControlNetModel`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct ControlNetConfig {
    /// Channels of the control picture.
    pub conditioning_channels: usize,
    /// Channels of the control picture's embedding at its full size, half, quarter, and so on.
    pub conditioning_embedding_out_channels: Vec<usize>,
    /// `rgb` or `bgr`.
    pub controlnet_conditioning_channel_order: String,
    /// Whether only the mean of each map counts; not implemented.
    pub global_pool_conditions: bool,
    /// What it has in common with the UNet that it was copied from. Its way up does not exist.
    #[serde(flatten)]
    pub unet: UnetConfig,
}

impl Default for ControlNetConfig {
    fn default() -> Self {
        Self {
            conditioning_channels: 3,
            conditioning_embedding_out_channels: vec![16, 32, 96, 256],
            controlnet_conditioning_channel_order: "rgb".into(),
            global_pool_conditions: false,
            unet: UnetConfig::default(),
        }
    }
}

impl ControlNetConfig {
    /// The configuration of a net without a `config.json`: that of the UNet that it controls, of which it is a copy, and
    /// the embedding of the picture as its tensors have it.
    ///
    /// # Errors
    /// [`Error::BadFile`] when the tensors are not those of a ControlNet.
    pub(super) fn like(unet: &UnetConfig, weights: &Weights, file: &str) -> Result<Self> {
        let no_net = |missing: String| Error::BadFile {
            file: file.into(),
            reason: format!("no ControlNet that is known here: it has no matrix `{missing}`"),
        };
        let shape = |name: String| match weights.index().and_then(|index| index.shape(&name)) {
            Some(&[outputs, inputs, ..]) => Ok((outputs, inputs)),
            _ => Err(no_net(name)),
        };
        let (first, conditioning_channels) = shape("controlnet_cond_embedding.conv_in.weight".into())?;
        let mut channels = vec![first];
        // Pairs of convolutions; the second of each halves the size.
        while let Ok((next, _)) =
            shape(format!("controlnet_cond_embedding.blocks.{}.weight", 2 * channels.len() - 1))
        {
            channels.push(next);
        }
        let (_, in_channels) = shape("conv_in.weight".into())?;
        let mut other = unet.other.clone();
        other.remove("_class_name");
        // Only the UNet itself is told the guidance scale.
        let time_cond_proj_dim = None;
        Ok(Self {
            conditioning_channels,
            conditioning_embedding_out_channels: channels,
            unet: UnetConfig { in_channels, time_cond_proj_dim, other, ..unet.clone() },
            ..Self::default()
        })
    }

    /// With the names of a way up that mirrors the way down, for [`UnetConfig::check`] to look at.
    #[must_use]
    pub(super) fn with_way_up(mut self) -> Self {
        self.unet.up_block_types = vec!["UpBlock2D".into(); self.unet.block_out_channels.len()];
        self
    }

    /// Checks that this crate implements everything that the configuration asks for.
    ///
    /// # Errors
    /// [`Error::UnsupportedConfig`] names the first field that is not.
    pub fn check(&self, file: &str) -> Result<()> {
        self.unet.check(file)?;
        let refuse = |field: &str, found: String, supported: &str| {
            Err(Error::UnsupportedConfig {
                file: file.into(),
                field: field.into(),
                found,
                supported: supported.into(),
            })
        };
        if self.global_pool_conditions {
            return refuse("global_pool_conditions", "true".into(), "false");
        }
        if self.conditioning_channels != 3 {
            return refuse("conditioning_channels", self.conditioning_channels.to_string(), "3: colours");
        }
        let order = &self.controlnet_conditioning_channel_order;
        if !matches!(order.as_str(), "rgb" | "bgr") {
            return refuse("controlnet_conditioning_channel_order", format!("`{order}`"), "rgb and bgr");
        }
        let channels = &self.conditioning_embedding_out_channels;
        if channels.is_empty() || channels.contains(&0) || channels.len() > MAX_SCALES {
            let supported = format!("1 to {MAX_SCALES} numbers of channels");
            return refuse("conditioning_embedding_out_channels", format!("{channels:?}"), &supported);
        }
        for field in ["num_class_embeds", "encoder_hid_dim"] {
            if let Some(value) = self.unet.other.get(field).filter(|value| !value.is_null()) {
                return refuse(field, value.to_string(), "null");
            }
        }
        match self.unet.other.get("_class_name") {
            Some(Value::String(class)) if class != "ControlNetModel" => {
                refuse("_class_name", format!("`{class}`"), "ControlNetModel")
            }
            _ => Ok(()),
        }
    }

    /// Checks that it can control `unet`, whose latents have `channels` and are `scale` times smaller than pictures.
    ///
    /// # Errors
    /// [`Error::UnsupportedConfig`] names the first field that does not fit.
    pub fn check_fits(&self, unet: &UnetConfig, channels: usize, scale: usize, file: &str) -> Result<()> {
        let own = &self.unet;
        let states = |config: &UnetConfig| {
            let channels: Vec<_> = config.skips().into_iter().map(|skip| skip.channels).collect();
            format!("{channels:?}")
        };
        let condition = |config: &UnetConfig| match &config.addition_embed_type {
            Some(_) => format!("{:?}", config.projection_class_embeddings_input_dim),
            None => "none".into(),
        };
        let added_fits = own.addition_embed_type.is_none() || condition(own) == condition(unet);
        for (fits, field, found, supported) in [
            (own.in_channels == channels, "in_channels", own.in_channels.to_string(), channels.to_string()),
            (own.skips() == unet.skips(), "block_out_channels, layers_per_block", states(own), states(unet)),
            (
                own.text_width() == unet.text_width(),
                "cross_attention_dim",
                own.text_width().to_string(),
                unet.text_width().to_string(),
            ),
            (added_fits, "projection_class_embeddings_input_dim", condition(own), condition(unet)),
            (
                self.scale_factor() == scale,
                "conditioning_embedding_out_channels",
                format!("made for pictures {} times as large as latents", self.scale_factor()),
                format!("{scale} times"),
            ),
        ] {
            if !fits {
                return Err(Error::UnsupportedConfig {
                    file: file.into(),
                    field: field.into(),
                    found,
                    supported: format!("{supported}, as the model has it"),
                });
            }
        }
        Ok(())
    }

    /// Pixels of the control picture for each of the latents, in both directions.
    pub fn scale_factor(&self) -> usize {
        1 << (self.conditioning_embedding_out_channels.len().max(1) - 1)
    }
}

/// Sizes at which the control picture is embedded, at most: pictures 128 times as large as latents.
const MAX_SCALES: usize = 8;
