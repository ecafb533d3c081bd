//! A second model, loaded beside the first, that may take over late in a run.

use std::sync::Arc;

use super::load::{self, Described, Opened};
use super::{LoadOptions, ModelSource, Parts};
use crate::{Error, Result};

/// A refiner before its weights are loaded.
pub(super) struct DescribedRefiner<'a> {
    source: &'a ModelSource,
    /// As for the first model, without what belongs to that alone.
    options: LoadOptions,
    pub(super) described: Described,
}

impl<'a> DescribedRefiner<'a> {
    /// The refiner that `options` names, if it can go on with the latents of `base`. Its weights are added to the budget of
    /// `base`.
    pub(super) fn read(base: &mut Described, options: &'a LoadOptions) -> Result<Option<Self>> {
        let Some(source) = &options.refiner else { return Ok(None) };
        let options = LoadOptions {
            embeddings: Vec::new(),
            embeddings_dir: None,
            preview_vae: None,
            upscaler: None,
            refiner: None,
            ..options.clone()
        };
        let opened = Opened { source, options: &options };
        let described = Described::read(&opened)?;
        check(base, &described).map_err(|reason| Error::UnsupportedModel {
            model: opened.describe("model_index.json"),
            reason,
        })?;
        base.budget = base.budget.with_beside(&opened)?;
        Ok(Some(Self { source, options, described }))
    }

    /// What error messages call it.
    pub(super) fn name(&self) -> String {
        self.opened().name()
    }

    fn opened(&self) -> Opened<'_> {
        Opened { source: self.source, options: &self.options }
    }

    /// Loads it. What decodes and previews latents is that of `base`.
    pub(super) fn load(self, base: &Parts) -> Result<Parts> {
        let Self { source, options, described } = self;
        let opened = Opened { source, options: &options };
        let mut parts = load::parts(&opened, described, Some(Arc::clone(&base.vae)))?;
        parts.info.latent_rgb = base.info.latent_rgb;
        Ok(Parts {
            preview_vae: base.preview_vae.clone(),
            budget: base.budget,
            nets: Arc::clone(&base.nets),
            ..parts
        })
    }
}

/// Whether a model can go on with the latents of another.
fn check(base: &Described, refiner: &Described) -> Result<(), String> {
    if base.family != refiner.family {
        return Err(format!(
            "as a refiner it must be of the model's family, {}; it is {}",
            base.family, refiner.family
        ));
    }
    if base.inpaints() || refiner.inpaints() {
        return Err("models made for inpainting neither have a refiner nor are one".into());
    }
    let latents = |of: &Described| (of.vae.latent_channels, of.vae.scale_factor(), of.vae.scaling_factor);
    let (own, found) = (latents(base), latents(refiner));
    match own == found {
        true => Ok(()),
        false => Err(format!(
            "as a refiner it must read the model's latents: channels, pixels and scaling_factor are {own:?}, its own {found:?}"
        )),
    }
}
