//! The web UI's settings, as far as they mean something here: `options` keeps them, `override_settings` changes them for
//! one request.

use operations_contract::{FieldError, ImageFormat, ModelCapabilities, RngKind};
use serde_json::{Map, Value, json};

use super::views::Options;

/// What a caller has set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// `sd_model_checkpoint`; `None`: the worker's own.
    pub(crate) model: Option<String>,
    /// `CLIP_stop_at_last_layers`, from 1.
    last_layers: u64,
    /// `samples_format`
    pub(crate) format: ImageFormat,
    /// `jpeg_quality`
    quality: u64,
    /// `show_progress_every_n_steps`; `None`: no previews.
    pub(crate) preview_every: Option<u64>,
    /// `randn_source`
    rng: Option<RngKind>,
    /// `eta_ddim`
    pub(crate) eta_ddim: Option<f64>,
}

impl Default for Settings {
    /// As the web UI has them, save that noise comes from the CPU.
    fn default() -> Self {
        Self {
            model: None,
            last_layers: 1,
            format: ImageFormat::Png,
            quality: 80,
            preview_every: Some(10),
            rng: None,
            eta_ddim: None,
        }
    }
}

/// What a setting was good for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Set,
    Ignored,
}

/// Settings beginning so are about files, memory and the user interface.
pub(crate) const WITHOUT_PICTURE: [&str; 27] = [
    "api_",
    "batch_cond_uncond",
    "clean_temp",
    "directories_",
    "do_not_",
    "enable_",
    "export_",
    "font",
    "gallery",
    "gradio",
    "grid_",
    "hide_",
    "img_",
    "interrogate_keep",
    "live_preview",
    "localization",
    "memmon",
    "multiple_tqdm",
    "notification",
    "outdir",
    "return_",
    "samples_save",
    "save",
    "sd_checkpoint",
    "sd_vae_checkpoint_cache",
    "show_",
    "ui_",
];

/// Whether a setting changes nothing with a value.
type IsNeutral = fn(&Value) -> bool;

/// For a setting that would change pictures in a way that is not possible here: the value with which it does not.
fn neutral(name: &str) -> Option<(IsNeutral, &'static str)> {
    match name {
        "eta_ancestral" | "s_noise" | "initial_noise_multiplier" => {
            Some((|value| value.as_f64() == Some(1.0), "1"))
        }
        "eta_noise_seed_delta"
        | "s_churn"
        | "s_min_uncond"
        | "token_merging_ratio"
        | "token_merging_ratio_hr"
        | "token_merging_ratio_img2img" => Some((|value| value.as_f64() == Some(0.0), "0")),
        "img2img_color_correction"
        | "img2img_fix_steps"
        | "tiling"
        | "always_discard_next_to_last_sigma"
        | "sgm_noise_multiplier" => Some((|value| value == &Value::Bool(false), "false")),
        "sd_vae" => Some((|value| matches!(value.as_str(), Some("Automatic" | "None" | "")), "`Automatic`")),
        _ => None,
    }
}

impl Settings {
    /// Sets one; `Err` says in words what is wrong with it. A setting that would change pictures in a way that is not
    /// possible here is refused, unless it has the value of its default.
    pub(crate) fn set(&mut self, name: &str, value: &Value) -> Result<Effect, String> {
        match name {
            "sd_model_checkpoint" => {
                let title = value.as_str().ok_or("must be a text")?;
                self.model = (!title.is_empty()).then(|| checkpoint(title).to_owned());
            }
            "CLIP_stop_at_last_layers" => {
                let layers = value.as_u64().filter(|layers| (1..=12).contains(layers));
                self.last_layers = layers.ok_or("must be a whole number in 1..=12")?;
            }
            "samples_format" => {
                self.format = match value.as_str() {
                    Some("png") => ImageFormat::Png,
                    Some("jpg" | "jpeg") => ImageFormat::Jpeg,
                    Some("webp") => ImageFormat::Webp,
                    _ => return Err("must be png, jpg or webp".into()),
                }
            }
            "jpeg_quality" => {
                let quality = value.as_u64().filter(|quality| (1..=100).contains(quality));
                self.quality = quality.ok_or("must be a whole number in 1..=100")?;
            }
            "show_progress_every_n_steps" => {
                let every = value.as_i64().filter(|every| (-1..=150).contains(every));
                let every = every.ok_or("must be a whole number in -1..=150")?;
                self.preview_every = u64::try_from(every).ok().filter(|every| *every > 0);
            }
            "live_previews_enable" => match value.as_bool().ok_or("must be true or false")? {
                true => self.preview_every = self.preview_every.or(Some(10)),
                false => self.preview_every = None,
            },
            "randn_source" => {
                self.rng = match value.as_str() {
                    Some("CPU") => Some(RngKind::TorchCpu),
                    Some("GPU" | "NV") => Some(RngKind::Philox),
                    _ => return Err("must be CPU, GPU or NV".into()),
                }
            }
            "eta_ddim" => {
                self.eta_ddim = Some(value.as_f64().ok_or("must be a number")?).filter(|eta| *eta != 0.0);
            }
            other => {
                if let Some((neutral, only)) = neutral(other) {
                    return if neutral(value) {
                        Ok(Effect::Set)
                    } else {
                        Err(format!("is possible as {only} only"))
                    };
                }
                let harmless = WITHOUT_PICTURE.iter().any(|beginning| other.starts_with(beginning));
                return if harmless {
                    Ok(Effect::Ignored)
                } else {
                    Err("is no setting that this worker knows".into())
                };
            }
        }
        Ok(Effect::Set)
    }

    /// Sets all of them, or tells every one that cannot be. Gives those that have no effect.
    pub(crate) fn set_all(
        &mut self,
        settings: &Map<String, Value>,
        prefix: &str,
        faults: &mut Vec<FieldError>,
    ) -> Vec<String> {
        let mut ignored = Vec::new();
        for (name, value) in settings {
            let path = format!("{prefix}{}", name.chars().take(80).collect::<String>());
            match self.set(name, value) {
                Ok(Effect::Set) => {}
                Ok(Effect::Ignored) => ignored.push(path),
                Err(message) => faults.push(FieldError::new(path, message).with_value(value.clone())),
            }
        }
        ignored
    }

    /// The fields of an operation that follow from the settings.
    pub(crate) fn fields(&self) -> Vec<(&'static str, Value)> {
        let mut fields = vec![("output", json!({"format": self.format, "quality": self.quality}))];
        fields.extend(self.model.as_ref().map(|model| ("model", model.as_str().into())));
        fields.extend(self.rng.map(|rng| ("rng", rng.as_str().into())));
        fields.extend((self.last_layers > 1).then(|| ("clip_skip", (self.last_layers - 1).into())));
        fields
    }

    /// As `options` shows them.
    pub(crate) fn show(&self, model: Option<&ModelCapabilities>) -> Options {
        let every = self.preview_every.and_then(|every| i64::try_from(every).ok());
        Options {
            sd_model_checkpoint: self.model.clone().or(model.map(|model| model.id.clone())),
            sd_checkpoint_hash: "",
            sd_vae: "Automatic",
            CLIP_stop_at_last_layers: self.last_layers,
            samples_format: if self.format == ImageFormat::Jpeg { "jpg" } else { self.format.as_str() },
            jpeg_quality: self.quality,
            show_progress_every_n_steps: every.unwrap_or(-1),
            live_previews_enable: self.preview_every.is_some(),
            randn_source: if self.rng == Some(RngKind::Philox) { "NV" } else { "CPU" },
            eta_ddim: self.eta_ddim.unwrap_or(0.0),
            eta_ancestral: 1.0,
            eta_noise_seed_delta: 0,
        }
    }
}

/// The id of a model in a title: `name.safetensors [0123456789]` is `name.safetensors`.
pub(crate) fn checkpoint(title: &str) -> &str {
    match title.rsplit_once(" [") {
        Some((name, hash)) if hash.ends_with(']') => name,
        _ => title,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_fields() {
        let mut settings = Settings::default();
        for (name, value) in [
            ("sd_model_checkpoint", json!("a.safetensors [0123]")),
            ("CLIP_stop_at_last_layers", json!(2)),
            ("samples_format", json!("jpg")),
            ("jpeg_quality", json!(95)),
            ("randn_source", json!("NV")),
            ("sd_vae", json!("Automatic")),
            ("eta_noise_seed_delta", json!(0)),
        ] {
            assert_eq!(settings.set(name, &value), Ok(Effect::Set), "{name}");
        }
        let fields: Map<String, Value> =
            settings.fields().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(
            Value::Object(fields),
            json!({"model": "a.safetensors", "clip_skip": 1, "rng": "philox", "output": {"format": "jpeg", "quality": 95}})
        );
        let shown = settings.show(None);
        assert_eq!((shown.samples_format, shown.CLIP_stop_at_last_layers), ("jpg", 2));
    }

    #[test]
    fn what_has_no_effect_is_known_as_such_and_the_rest_refused() {
        let mut settings = Settings::default();
        for harmless in ["samples_save", "grid_save", "save_images_add_number", "live_preview_refresh_period"]
        {
            let effect = settings.set(harmless, &json!(true));
            assert_eq!(effect, Ok(Effect::Ignored), "{harmless}");
        }
        for (refused, value) in [
            ("CLIP_stop_at_last_layers", json!(13)),
            ("sd_vae", json!("other.vae.pt")),
            ("eta_noise_seed_delta", json!(31337)),
            ("img2img_color_correction", json!(true)),
            ("sd_hypernetwork", json!("x")),
            ("randn_source", json!("TPU")),
            ("s_noise", json!(1.1)),
        ] {
            assert!(settings.set(refused, &value).is_err(), "{refused}");
        }
        assert_eq!(settings, Settings::default());
    }
}
