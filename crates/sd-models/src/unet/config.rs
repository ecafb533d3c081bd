//! `unet/config.json`.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::{Error, Result};

/// A value for all blocks, or one for each.
#[derive(Debug, Clone)]
pub enum PerBlock<T> {
    /// The same everywhere.
    One(T),
    /// In the order of the down blocks.
    Each(Vec<T>),
}

impl<'de> Deserialize<'de> for PerBlock<usize> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let found = Value::deserialize(deserializer)?;
        let whole = |value: &Value| usize::try_from(value.as_u64()?).ok();
        let read = match &found {
            Value::Array(values) => values.iter().map(whole).collect::<Option<_>>().map(Self::Each),
            value => whole(value).map(Self::One),
        };
        read.ok_or_else(|| {
            D::Error::custom(format!("{found} is neither a whole number from 0 nor a list of such"))
        })
    }
}

impl<T: Copy> PerBlock<T> {
    fn get(&self, block: usize) -> Option<T> {
        match self {
            Self::One(value) => Some(*value),
            Self::Each(values) => values.get(block).copied(),
        }
    }

    fn covers(&self, blocks: usize) -> bool {
        match self {
            Self::One(_) => true,
            Self::Each(values) => values.len() == blocks,
        }
    }
}

/// The configuration of a UNet with the defaults of `diffusers.UNet2DConditionModel`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct UnetConfig {
    /// Height and width of the latents it was trained on.
    pub sample_size: Option<usize>,
    /// Channels of its input: 4, or 9 for inpainting models.
    pub in_channels: usize,
    /// Channels of its output.
    pub out_channels: usize,
    /// Whether cosines come first in the timestep embedding.
    pub flip_sin_to_cos: bool,
    /// Subtracted from the frequency count of the timestep embedding.
    pub freq_shift: f64,
    /// `CrossAttnDownBlock2D` or `DownBlock2D`, from the finest level to the coarsest.
    pub down_block_types: Vec<String>,
    /// `UNetMidBlock2DCrossAttn`, or null for no middle.
    pub mid_block_type: Option<String>,
    /// `CrossAttnUpBlock2D` or `UpBlock2D`, from the coarsest level to the finest.
    pub up_block_types: Vec<String>,
    /// Channels of each level.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks in each level (one more on the way up).
    pub layers_per_block: PerBlock<usize>,
    /// Zeros around the input of a downsampling convolution.
    pub downsample_padding: usize,
    /// The output of the middle block is divided by this.
    pub mid_block_scale_factor: f64,
    /// The activation's name; `silu`.
    pub act_fn: String,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// Epsilon of the group norms in residual blocks.
    pub norm_eps: f64,
    /// Width of the text states.
    pub cross_attention_dim: PerBlock<usize>,
    /// Transformer blocks in each attention layer of a level.
    pub transformer_layers_per_block: PerBlock<usize>,
    /// The number of heads, whatever its name says: a slip of the first release that all checkpoints depend on.
    pub attention_head_dim: PerBlock<usize>,
    /// The number of heads where a configuration gives it under its right name.
    pub num_attention_heads: Option<PerBlock<usize>>,
    /// Linear layers instead of 1x1 convolutions around the transformer blocks.
    pub use_linear_projection: bool,
    /// Width of the embedding of the guidance scale, in models that were distilled with guidance (LCM); null otherwise.
    pub time_cond_proj_dim: Option<usize>,
    /// `text_time` for SDXL's pooled text and sizes; null otherwise.
    pub addition_embed_type: Option<String>,
    /// Width of the embedding of each size.
    pub addition_time_embed_dim: Option<usize>,
    /// Width of the concatenated added conditions.
    pub projection_class_embeddings_input_dim: Option<usize>,
    /// Everything else, looked at only to refuse what is not implemented.
    #[serde(flatten)]
    pub other: serde_json::Map<String, Value>,
}

impl Default for UnetConfig {
    fn default() -> Self {
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: ["CrossAttnDownBlock2D"; 3]
                .iter()
                .chain(&["DownBlock2D"])
                .map(|s| (*s).into())
                .collect(),
            mid_block_type: Some("UNetMidBlock2DCrossAttn".into()),
            up_block_types: ["UpBlock2D"]
                .iter()
                .chain(&["CrossAttnUpBlock2D"; 3])
                .map(|s| (*s).into())
                .collect(),
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: PerBlock::One(2),
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
            act_fn: "silu".into(),
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: PerBlock::One(1280),
            transformer_layers_per_block: PerBlock::One(1),
            attention_head_dim: PerBlock::One(8),
            num_attention_heads: None,
            use_linear_projection: false,
            time_cond_proj_dim: None,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            projection_class_embeddings_input_dim: None,
            other: serde_json::Map::new(),
        }
    }
}

/// What the blocks of one level need to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    pub channels: usize,
    pub layers: usize,
    pub heads: usize,
    pub cross_dim: usize,
    pub depth: usize,
}

/// A state that waits for the way up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Skip {
    pub channels: usize,
    /// How often the size of the latents was halved before.
    pub halvings: usize,
}

impl UnetConfig {
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
        if levels == 0 {
            return refuse("block_out_channels", "empty".into(), "at least one level");
        }
        for (field, types, known) in [
            ("down_block_types", &self.down_block_types, ["CrossAttnDownBlock2D", "DownBlock2D"]),
            ("up_block_types", &self.up_block_types, ["CrossAttnUpBlock2D", "UpBlock2D"]),
        ] {
            if types.len() != levels {
                return refuse(
                    field,
                    format!("{} blocks", types.len()),
                    "one for each of block_out_channels",
                );
            }
            if let Some(odd) = types.iter().find(|name| !known.contains(&name.as_str())) {
                return refuse(field, format!("`{odd}`"), &known.join(" and "));
            }
        }
        if let Some(odd) = self.mid_block_type.as_deref().filter(|name| *name != "UNetMidBlock2DCrossAttn") {
            return refuse("mid_block_type", format!("`{odd}`"), "UNetMidBlock2DCrossAttn or null");
        }
        if !matches!(self.act_fn.as_str(), "silu" | "swish") {
            return refuse("act_fn", format!("`{}`", self.act_fn), "silu");
        }
        if let Some(odd) = self.addition_embed_type.as_deref().filter(|name| *name != "text_time") {
            return refuse("addition_embed_type", format!("`{odd}`"), "text_time or null");
        }
        if self.addition_embed_type.is_some()
            && (self.addition_time_embed_dim.is_none()
                || self.projection_class_embeddings_input_dim.is_none())
        {
            return refuse(
                "addition_time_embed_dim, projection_class_embeddings_input_dim",
                "missing".into(),
                "a width, which `text_time` needs",
            );
        }
        // Four, because two frequencies are the fewest that have a spacing.
        if let Some(odd) = self.time_cond_proj_dim.filter(|dim| !(4..=65_536).contains(dim)) {
            return refuse("time_cond_proj_dim", odd.to_string(), "4 to 65536, or null");
        }
        for (field, per_block) in [
            ("layers_per_block", &self.layers_per_block),
            ("cross_attention_dim", &self.cross_attention_dim),
            ("transformer_layers_per_block", &self.transformer_layers_per_block),
            ("attention_head_dim", self.heads()),
        ] {
            if !per_block.covers(levels) {
                return refuse(field, format!("{per_block:?}"), "one value, or one for each level");
            }
        }
        for (level, &channels) in self.block_out_channels.iter().enumerate() {
            let heads = self.heads().get(level).unwrap_or(0);
            if self.norm_num_groups == 0 || channels % self.norm_num_groups != 0 {
                return refuse(
                    "norm_num_groups",
                    self.norm_num_groups.to_string(),
                    "a divisor of every level's channels",
                );
            }
            if heads == 0 || channels % heads != 0 {
                return refuse("attention_head_dim", heads.to_string(), "a divisor of the level's channels");
            }
        }
        // Switches of the reference that change the computation. Absent, null and false are all "off".
        for field in [
            "center_input_sample",
            "only_cross_attention",
            "dual_cross_attention",
            "class_embed_type",
            "encoder_hid_dim",
            "encoder_hid_dim_type",
            "time_embedding_dim",
            "mid_block_only_cross_attention",
            "resnet_skip_time_act",
            "class_embeddings_concat",
            "cross_attention_norm",
            "attention_type",
            "time_embedding_act_fn",
            "timestep_post_act",
            "reverse_transformer_layers_per_block",
        ] {
            let value = self.other.get(field).unwrap_or(&Value::Null);
            let off = value.is_null() || *value == Value::Bool(false) || value == "default";
            if !off {
                return refuse(field, value.to_string(), "null or false");
            }
        }
        for (field, wanted) in [("resnet_time_scale_shift", "default"), ("time_embedding_type", "positional")]
        {
            if let Some(value) = self.other.get(field).filter(|value| *value != wanted) {
                return refuse(field, value.to_string(), wanted);
            }
        }
        for field in ["conv_in_kernel", "conv_out_kernel"] {
            if let Some(value) = self.other.get(field).filter(|value| **value != 3) {
                return refuse(field, value.to_string(), "3");
            }
        }
        Ok(())
    }

    fn heads(&self) -> &PerBlock<usize> {
        self.num_attention_heads.as_ref().unwrap_or(&self.attention_head_dim)
    }

    /// The level `index`, counted from the finest. Call [`UnetConfig::check`] first.
    pub(super) fn level(&self, index: usize) -> Level {
        Level {
            channels: self.block_out_channels[index],
            layers: self.layers_per_block.get(index).unwrap_or(1),
            heads: self.heads().get(index).unwrap_or(1),
            cross_dim: self.cross_attention_dim.get(index).unwrap_or(1),
            depth: self.transformer_layers_per_block.get(index).unwrap_or(1),
        }
    }

    /// The states that the way down hands to the way up, in the order in which it makes them.
    pub(crate) fn skips(&self) -> Vec<Skip> {
        let levels = self.block_out_channels.len();
        let mut skips: Vec<Skip> = self
            .block_out_channels
            .first()
            .map(|&channels| Skip { channels, halvings: 0 })
            .into_iter()
            .collect();
        for (level, &channels) in self.block_out_channels.iter().enumerate() {
            let layers = self.layers_per_block.get(level).unwrap_or(1);
            skips.extend(std::iter::repeat_n(Skip { channels, halvings: level }, layers));
            if level + 1 < levels {
                skips.push(Skip { channels, halvings: level + 1 });
            }
        }
        skips
    }

    /// How many numbers beside the pooled text, `pooled` wide, condition the UNet: 6 in SDXL, 5 in its refiner. `None` where
    /// it takes neither, or where they do not fit its width.
    pub fn time_ids(&self, pooled: usize) -> Option<usize> {
        let dim = self.addition_time_embed_dim.filter(|dim| *dim > 0)?;
        let width = self.projection_class_embeddings_input_dim?.checked_sub(pooled)?;
        width.is_multiple_of(dim).then_some(width / dim)
    }

    /// The width of the text states that the cross-attention reads.
    pub fn text_width(&self) -> usize {
        self.cross_attention_dim.get(0).unwrap_or(0)
    }
}
