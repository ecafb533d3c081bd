//! The web UI's lists: what there is to choose from.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Response, StatusCode};
use operations_contract::{ModelCapabilities, Upscaler};
use serde::Serialize;

use super::{hires, names, views};
use crate::api::Api;
use crate::body::{self, ResponseBody};

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
    /// The list. Until a model is loaded there is nothing to choose from.
    pub(crate) fn show(self, api: &Api) -> Response<ResponseBody> {
        let model: Option<Arc<ModelCapabilities>> = api.router().readiness().ok();
        let model = model.as_deref();
        match self {
            Self::Samplers => list(model, samplers),
            Self::Schedulers => list(model, schedulers),
            Self::SdModels => told(&models(api)),
            Self::Loras => list(model, loras),
            Self::Upscalers => list(model, upscalers),
            Self::LatentUpscaleModes => list(model, |model| {
                let latent = model.upscalers.contains(&Upscaler::Latent);
                latent.then_some(views::LatentUpscaler { name: "Latent" }).into_iter().collect()
            }),
            Self::Embeddings => {
                let loaded = model.map(embeddings).unwrap_or_default();
                told(&views::Embeddings { loaded, skipped: BTreeMap::new() })
            }
            Self::Scripts => {
                let has_nets = model.is_some_and(|model| !model.controls.is_empty());
                let scripts: &[&str] = if has_nets { &["controlnet"] } else { &[] };
                told(&views::Scripts { txt2img: scripts, img2img: scripts })
            }
            Self::Empty => told::<[(); 0]>(&[]),
        }
    }
}

fn told<T: Serialize + ?Sized>(list: &T) -> Response<ResponseBody> {
    body::json(StatusCode::OK, &list)
}

fn list<T: Serialize>(
    model: Option<&ModelCapabilities>,
    entries: impl FnOnce(&ModelCapabilities) -> Vec<T>,
) -> Response<ResponseBody> {
    told(&model.map(entries).unwrap_or_default())
}

/// The models that can be asked for.
fn models(api: &Api) -> Vec<views::Model> {
    let entry = |id: &String| views::Model {
        title: id.clone(),
        model_name: id.clone(),
        hash: None,
        sha256: None,
        filename: id.clone(),
        config: None,
    };
    api.router().models().iter().map(|model| entry(&model.capabilities.id)).collect()
}

fn samplers(model: &ModelCapabilities) -> Vec<views::Sampler> {
    let entry = |sampler| {
        let (name, aliases) = names::of_sampler(sampler);
        views::Sampler { name, aliases, options: BTreeMap::new() }
    };
    model.samplers.iter().copied().map(entry).collect()
}

fn loras(model: &ModelCapabilities) -> Vec<views::Lora> {
    let entry = |name: &String| views::Lora {
        name: name.clone(),
        alias: name.clone(),
        path: "",
        metadata: BTreeMap::new(),
    };
    model.loras.iter().map(entry).collect()
}

/// The model's own, and `Automatic`, which is another one for each sampler.
fn schedulers(model: &ModelCapabilities) -> Vec<views::Scheduler> {
    let automatic = views::Scheduler {
        name: "automatic",
        label: "Automatic",
        aliases: None,
        default_rho: -1.0,
        need_inner_model: false,
    };
    let known = names::schedules().filter(|known| model.schedules.contains(&known.schedule));
    let entry = |known: names::KnownSchedule| views::Scheduler {
        name: known.name,
        label: known.label,
        aliases: Some(known.aliases),
        default_rho: known.rho,
        need_inner_model: matches!(known.name, "sgm_uniform" | "simple" | "normal" | "ddim" | "beta"),
    };
    std::iter::once(automatic).chain(known.map(entry)).collect()
}

fn upscalers(model: &ModelCapabilities) -> Vec<views::Upscaler> {
    let of_pictures = model.upscalers.iter().filter(|upscaler| **upscaler != Upscaler::Latent);
    let entry = |upscaler: &Upscaler| views::Upscaler {
        name: hires::upscaler_name(*upscaler),
        model_name: None,
        model_path: None,
        model_url: None,
        scale: 4.0,
    };
    of_pictures.map(entry).collect()
}

fn embeddings(model: &ModelCapabilities) -> BTreeMap<String, views::Embedding> {
    model.embeddings.iter().map(|name| (name.clone(), views::Embedding::default())).collect()
}
