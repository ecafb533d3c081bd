//! `text_encoder/config.json`.

use serde::Deserialize;

use crate::{Error, Result};

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

    /// Checks that the numbers make a text encoder.
    ///
    /// # Errors
    /// [`Error::UnsupportedConfig`] names the first field that does not.
    pub fn check(&self, file: &str) -> Result<()> {
        let refuse = |field: &str, found: usize, supported: String| {
            Err(Error::UnsupportedConfig {
                file: file.into(),
                field: field.into(),
                found: found.to_string(),
                supported,
            })
        };
        for (field, found, least) in [
            ("hidden_size", self.hidden_size, 1),
            ("intermediate_size", self.intermediate_size, 1),
            ("num_hidden_layers", self.num_hidden_layers, 1),
            ("num_attention_heads", self.num_attention_heads, 1),
            // The start and the end token at least.
            ("vocab_size", self.vocab_size, 2),
            ("max_position_embeddings", self.max_position_embeddings, 2),
            ("projection_dim", self.projection_dim, usize::from(self.has_projection())),
        ] {
            if found < least {
                return refuse(field, found, format!("at least {least}"));
            }
        }
        let (width, heads) = (self.hidden_size, self.num_attention_heads);
        if !width.is_multiple_of(heads) {
            return refuse("num_attention_heads", heads, format!("a divisor of `hidden_size`, {width}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(json: &str) -> String {
        let config: ClipTextConfig = serde_json::from_str(json).unwrap();
        config.check("text_encoder/config.json").unwrap_err().to_string()
    }

    #[test]
    fn what_makes_no_encoder_is_refused_by_field() {
        for (json, field) in [
            (r#"{"hidden_size": 0}"#, "`hidden_size` is 0"),
            (r#"{"intermediate_size": 0}"#, "`intermediate_size` is 0"),
            (r#"{"num_hidden_layers": 0}"#, "`num_hidden_layers` is 0"),
            (r#"{"num_attention_heads": 0}"#, "`num_attention_heads` is 0"),
            (r#"{"num_attention_heads": 7}"#, "`num_attention_heads` is 7"),
            (r#"{"vocab_size": 1}"#, "`vocab_size` is 1"),
            (r#"{"max_position_embeddings": 1}"#, "`max_position_embeddings` is 1"),
            (
                r#"{"architectures": ["CLIPTextModelWithProjection"], "projection_dim": 0}"#,
                "`projection_dim` is 0",
            ),
        ] {
            let message = refusal(json);
            assert!(message.contains(field) && message.contains("text_encoder/config.json"), "{message}");
        }
    }

    #[test]
    fn usual_encoders_pass() {
        // Without a projection its width does not matter.
        for json in ["{}", r#"{"projection_dim": 0}"#, r#"{"hidden_size": 768, "num_attention_heads": 12}"#] {
            let config: ClipTextConfig = serde_json::from_str(json).unwrap();
            config.check("text_encoder/config.json").unwrap();
        }
    }
}
