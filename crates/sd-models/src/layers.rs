//! The loaded layers of one model part, by their scopes.
//!
//! A model definition loads its layers by name and knows nothing of this: [`Weights`](crate::Weights) hands a layer
//! that is already there to whoever asks for it again. So the adapted form of a model is loaded by the definition that
//! loaded the model, and holds every layer that no adapter changes in common with it.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::lora::Patch;
use crate::{Error, Result};

/// The layers of a model part that were loaded, what was added to them, and which files they came from.
#[derive(Default)]
pub struct Layers {
    files: Vec<FileStamp>,
    patch: Patch,
    /// Whether layers that are loaded are added.
    records: bool,
    loaded: Mutex<HashMap<String, Loaded>>,
}

/// What tells a weight file from another that took its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileStamp {
    pub(crate) name: String,
    pub(crate) bytes: usize,
    pub(crate) modified: Option<SystemTime>,
}

#[derive(Clone)]
struct Loaded {
    /// The shape of the weight where an adapter can change it.
    weight: Option<Vec<usize>>,
    layer: Arc<dyn Any + Send + Sync>,
}

impl Layers {
    pub(crate) fn of_files(files: Vec<FileStamp>) -> Self {
        Self { files, ..Self::default() }
    }

    /// The layers that `patch` leaves as they are here; those that it changes, or that were changed here, are left out
    /// and will be loaded again.
    pub fn with(&self, patch: Patch) -> Self {
        let known = self.lock();
        let unchanged = known.iter().filter(|(scope, _)| self.patch.terms(scope) == patch.terms(scope));
        let loaded = unchanged.map(|(scope, layer)| (scope.clone(), layer.clone())).collect();
        Self { files: self.files.clone(), patch, records: false, loaded: Mutex::new(loaded) }
    }

    /// The same layers, to which those are added that are loaded from now on.
    pub(crate) fn recording(&self) -> Self {
        let loaded = Mutex::new(self.lock().clone());
        Self { files: self.files.clone(), patch: self.patch.clone(), records: true, loaded }
    }

    /// Whether `patch` is what was added to these layers.
    pub fn have(&self, patch: &Patch) -> bool {
        self.patch == *patch
    }

    /// How many values the weights have that [`Layers::with`] leaves out: what will be there twice while both forms
    /// of the model are.
    pub fn changed_values(&self, patch: &Patch) -> u64 {
        let loaded = self.lock();
        let changed = loaded.iter().filter(|(scope, _)| self.patch.terms(scope) != patch.terms(scope));
        changed
            .filter_map(|(_, layer)| layer.weight.as_ref())
            .map(|shape| shape.iter().fold(1u64, |product, side| product.saturating_mul(*side as u64)))
            .fold(0, u64::saturating_add)
    }

    /// The scopes of the layers that an adapter can change, such as `mid_block.attentions.0.proj_in`, with the
    /// shapes of their weights.
    pub fn adaptable(&self) -> BTreeMap<String, Vec<usize>> {
        let loaded = self.lock();
        loaded.iter().filter_map(|(scope, layer)| Some((scope.clone(), layer.weight.clone()?))).collect()
    }

    pub(crate) fn files(&self) -> &[FileStamp] {
        &self.files
    }

    /// What is added to the weights.
    pub(crate) fn patch(&self) -> &Patch {
        &self.patch
    }

    /// The layer of `scope` that is here, or the one that `load` gives. `weight` is the shape of its weight where an
    /// adapter can change it.
    pub(crate) fn layer<L: Clone + Send + Sync + 'static>(
        &self,
        scope: &str,
        weight: Option<&[usize]>,
        load: impl FnOnce() -> Result<L>,
    ) -> Result<L> {
        let known = self.lock().get(scope).and_then(|known| known.layer.downcast_ref::<L>().cloned());
        if let Some(layer) = known {
            return Ok(layer);
        }
        let layer = load()?;
        if self.records {
            let loaded = Loaded { weight: weight.map(<[_]>::to_vec), layer: Arc::new(layer.clone()) };
            self.lock().insert(scope.to_owned(), loaded);
        }
        Ok(layer)
    }

    /// Refuses files that are no longer those that these layers were loaded from.
    pub(crate) fn check_files(&self, now: &[FileStamp]) -> Result<()> {
        match self.files.iter().zip(now).find(|(then, now)| then != now) {
            None if self.files.len() == now.len() => Ok(()),
            changed => Err(Error::BadFile {
                file: changed.map_or_else(|| "the model".to_owned(), |(then, _)| then.name.clone()),
                reason: "changed since the model was loaded; load the model again".into(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Loaded>> {
        // Nothing is left half done under this lock.
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Layers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layers").field("loaded", &self.lock().len()).field("patch", &self.patch).finish()
    }
}
