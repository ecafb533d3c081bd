//! The web UI's lists: what there is to choose from.

use std::sync::Arc;

use operations_contract::{ModelCapabilities, Upscaler};
use serde_json::{Map, Value, json};

use super::{hires, names};
use crate::api::Api;

/// One list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    Samplers,
    Schedulers,
    SdModels,
    Loras,
    Upscalers,
    LatentUpscaleModes,
    Embeddings,
    Scripts,
    /// Of things that this worker does not have.
    Empty,
}

impl List {
    pub(crate) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "samplers" => Self::Samplers,
            "schedulers" => Self::Schedulers,
            "sd-models" => Self::SdModels,
            "loras" => Self::Loras,
            "upscalers" => Self::Upscalers,
            "latent-upscale-modes" => Self::LatentUpscaleModes,
            "embeddings" => Self::Embeddings,
            "scripts" => Self::Scripts,
            "sd-vae" | "hypernetworks" | "face-restorers" | "realesrgan-models" | "prompt-styles"
            | "extensions" | "script-info" => Self::Empty,
            _ => return None,
        })
    }

    /// The list as JSON. Until a model is loaded there is nothing to choose from.
    pub(crate) fn show(self, api: &Api) -> Value {
        let model: Option<Arc<ModelCapabilities>> = api.router().readiness().ok();
        let model = model.as_deref();
        match self {
            Self::Samplers => list(model, |model| {
                model
                    .samplers
                    .iter()
                    .map(|sampler| {
                        let (name, aliases) = names::of_sampler(*sampler);
                        json!({"name": name, "aliases": aliases, "options": {}})
                    })
                    .collect()
            }),
            Self::Schedulers => list(model, schedulers),
            Self::SdModels => models(api).into_iter().map(sd_model).collect::<Vec<_>>().into(),
            // Where the files are is nobody's business.
            Self::Loras => list(model, |model| {
                let lora = |name: &String| json!({"name": name, "alias": name, "path": "", "metadata": {}});
                model.loras.iter().map(lora).collect()
            }),
            Self::Upscalers => list(model, upscalers),
            Self::LatentUpscaleModes => list(model, |model| {
                let latent = model.upscalers.contains(&Upscaler::Latent);
                latent.then(|| json!({"name": "Latent"})).into_iter().collect()
            }),
            Self::Embeddings => json!({"loaded": model.map(embeddings).unwrap_or_default(), "skipped": {}}),
            Self::Scripts => {
                let has_nets = model.is_some_and(|model| !model.controls.is_empty());
                let scripts: &[&str] = if has_nets { &["controlnet"] } else { &[] };
                json!({"txt2img": scripts, "img2img": scripts})
            }
            Self::Empty => json!([]),
        }
    }
}

/// The names of the models that can be asked for.
fn models(api: &Api) -> Vec<String> {
    api.router().models().iter().map(|model| model.capabilities.id.clone()).collect()
}

fn sd_model(id: String) -> Value {
    json!({"title": id, "model_name": id, "hash": null, "sha256": null, "filename": id, "config": null})
}

fn list(model: Option<&ModelCapabilities>, entries: impl FnOnce(&ModelCapabilities) -> Vec<Value>) -> Value {
    model.map(entries).unwrap_or_default().into()
}

/// The model's own, and `Automatic`, which is another one for each sampler.
fn schedulers(model: &ModelCapabilities) -> Vec<Value> {
    let automatic = json!({"name": "automatic", "label": "Automatic", "aliases": null, "default_rho": -1.0,
                           "need_inner_model": false});
    let known = names::schedules().filter(|known| model.schedules.contains(&known.schedule));
    let entry = |known: names::KnownSchedule| {
        let inner = matches!(known.name, "sgm_uniform" | "simple" | "normal" | "ddim" | "beta");
        json!({"name": known.name, "label": known.label, "aliases": known.aliases, "default_rho": known.rho,
               "need_inner_model": inner})
    };
    std::iter::once(automatic).chain(known.map(entry)).collect()
}

fn upscalers(model: &ModelCapabilities) -> Vec<Value> {
    let of_pictures = model.upscalers.iter().filter(|upscaler| **upscaler != Upscaler::Latent);
    let entry = |upscaler: &Upscaler| {
        json!({"name": hires::upscaler_name(*upscaler), "model_name": null, "model_path": null, "model_url": null,
               "scale": 4.0})
    };
    of_pictures.map(entry).collect()
}

fn embeddings(model: &ModelCapabilities) -> Map<String, Value> {
    let entry = json!({"step": null, "sd_checkpoint": null, "sd_checkpoint_name": null});
    model.embeddings.iter().map(|name| (name.clone(), entry.clone())).collect()
}
