//! `text_encoder/config.json`.

use serde::Deserialize;

/// The configuration of a CLIP text encoder, with the defaults of `transformers.CLIPTextConfig`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct ClipTextConfig {
    /// The classes that can load the folder; `CLIPTextModelWithProjection` has a projection of the pooled state.
    pub architectures: Vec<String>,
    /// Rows of the token table.
    pub vocab_size: usize,
    /// Width of the states.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Width of the projected pooled state.
    pub projection_dim: usize,
    /// Number of transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads in each.
    pub num_attention_heads: usize,
    /// The longest sequence, start and end tokens included.
    pub max_position_embeddings: usize,
    /// The feed-forward activation's name.
    pub hidden_act: String,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
    /// The token whose state is pooled. Models saved before this was corrected say 2 and mean the largest id.
    pub eos_token_id: u32,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            architectures: Vec::new(),
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
            eos_token_id: 49407,
        }
    }
}

impl ClipTextConfig {
    /// Whether the model projects its pooled state.
    pub fn has_projection(&self) -> bool {
        self.architectures.iter().any(|name| name == "CLIPTextModelWithProjection")
    }
}
