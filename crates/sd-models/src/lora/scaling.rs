//! What PEFT says of an adapter's strength beside its tensors.
//!
//! Kohya writes `alpha` as a tensor of each layer. PEFT keeps it in its configuration, which diffusers puts into the
//! file's header (`lora_adapter_metadata`, with the part of the model before each name: `unet.lora_alpha`) and PEFT
//! itself into `adapter_config.json` beside the file.

use serde_json::{Map, Value};

/// The configuration of an adapter, as far as it decides its strength.
#[derive(Debug, Default)]
pub(super) struct Settings(Map<String, Value>);

impl Settings {
    /// Settings from their JSON; `None` when it is no object.
    pub(super) fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().map(Self)
    }

    /// What `up * down` of a layer is multiplied by; `None` where nothing is said, which means 1.
    pub(super) fn factor(&self, layer: &str, rank: usize) -> Option<f64> {
        let (part, name) = match layer.split_once('.') {
            Some((part @ ("unet" | "text_encoder" | "text_encoder_2"), name)) => (format!("{part}."), name),
            _ => (String::new(), layer),
        };
        let setting = |name: &str| self.0.get(&format!("{part}{name}")).or_else(|| self.0.get(name));
        let patterns = setting("alpha_pattern").and_then(Value::as_object);
        let own = patterns.and_then(|patterns| patterns.iter().find(|(pattern, _)| means(pattern, name)));
        let alpha = own.map(|(_, alpha)| alpha).or_else(|| setting("lora_alpha"))?.as_f64()?;
        // Kalajdzievski, 2023, "A rank stabilization scaling factor".
        let stabilised = setting("use_rslora").and_then(Value::as_bool).unwrap_or(false);
        Some(alpha / if stabilised { (rank as f64).sqrt() } else { rank as f64 })
    }
}

/// Whether a pattern, which may leave out the beginning, is about the layer.
fn means(pattern: &str, layer: &str) -> bool {
    layer.strip_suffix(pattern).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_and_the_pattern_decide() {
        let diffusers = Settings::from_json(
            r#"{"unet.lora_alpha": 8, "unet.r": 4, "unet.alpha_pattern": {"attn1.to_q": 2}, "text_encoder.lora_alpha": 3,
                "text_encoder.use_rslora": true}"#,
        )
        .unwrap();
        assert_eq!(diffusers.factor("unet.mid_block.attn1.to_k", 4), Some(2.0));
        assert_eq!(diffusers.factor("unet.mid_block.attn1.to_q", 4), Some(0.5));
        assert_eq!(diffusers.factor("text_encoder.text_model.x", 9), Some(1.0));
        assert_eq!(diffusers.factor("text_encoder_2.text_model.x", 9), None);
        let peft = Settings::from_json(r#"{"lora_alpha": 16, "r": 8}"#).unwrap();
        assert_eq!(peft.factor("mid_block.attn1.to_q", 8), Some(2.0));
        assert_eq!(Settings::default().factor("unet.x", 4), None);
        assert!(Settings::from_json("[1]").is_none());
    }
}
