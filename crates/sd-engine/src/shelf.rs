//! The models that are loaded, and how room is made for another.

use std::sync::Arc;
use std::time::Instant;

use operations_contract::{ModelCapabilities, ModelState};

use crate::board::{ModelBoard, ModelEntry};
use crate::engine::guarded;
use crate::generator::{Generator, GeneratorError};
use crate::loader::{ModelLoader, ModelMemory, ModelRules};
use crate::metrics;
use crate::spans;

/// All models of the engine, loaded or not. What happens to them is posted on the board.
pub(crate) struct Shelf<L: ModelLoader> {
    loader: L,
    rules: ModelRules,
    board: ModelBoard,
    /// The default first.
    slots: Vec<Slot<L::Generator>>,
}

struct Slot<G> {
    capabilities: ModelCapabilities,
    memory: Option<ModelMemory>,
    loaded: Option<Loaded<G>>,
}

struct Loaded<G> {
    generator: G,
    max_active: usize,
    used: Instant,
}

impl<L: ModelLoader> Shelf<L> {
    pub(crate) fn new(loader: L, rules: ModelRules, board: ModelBoard) -> Self {
        let slot = |offer: crate::ModelOffer| Slot {
            capabilities: offer.capabilities,
            memory: offer.memory,
            loaded: None,
        };
        let slots: Vec<_> = loader.offers().into_iter().map(slot).collect();
        let entry = |slot: &Slot<L::Generator>| ModelEntry {
            capabilities: Arc::new(slot.capabilities.clone()),
            state: ModelState::Unloaded,
            error: None,
            memory_bytes: slot.memory.map(|memory| memory.weights),
            prompts: loader.prompt_check(&slot.capabilities.id),
            impossible: rules
                .budget
                .and_then(|budget| too_large(&slot.capabilities.id, slot.memory?, budget)),
        };
        board.post_models(slots.iter().map(entry).collect());
        Self { loader, rules, board, slots }
    }

    /// The place of the model with this id.
    pub(crate) fn find(&self, id: &str) -> Option<usize> {
        self.slots.iter().position(|slot| slot.capabilities.id == id)
    }

    pub(crate) fn is_loaded(&self, id: &str) -> bool {
        self.slots.iter().any(|slot| slot.capabilities.id == id && slot.loaded.is_some())
    }

    /// The ids of all that are loaded.
    pub(crate) fn loaded_ids(&self) -> Vec<Arc<str>> {
        let loaded = self.slots.iter().filter(|slot| slot.loaded.is_some());
        loaded.map(|slot| slot.capabilities.id.as_str().into()).collect()
    }

    pub(crate) fn capabilities(&self, index: usize) -> Option<&ModelCapabilities> {
        self.slots.get(index).map(|slot| &slot.capabilities)
    }

    /// A loaded model, counted as used now.
    pub(crate) fn loaded(&mut self, index: usize) -> Option<&mut L::Generator> {
        let loaded = self.slots.get_mut(index)?.loaded.as_mut()?;
        loaded.used = Instant::now();
        Some(&mut loaded.generator)
    }

    /// How many generations a loaded model advances together.
    pub(crate) fn max_active(&self, index: usize) -> usize {
        let loaded = self.slots.get(index).and_then(|slot| slot.loaded.as_ref());
        loaded.map_or(1, |loaded| loaded.max_active)
    }

    /// Loads a model if it is not, and unloads others as far as that needs it. Nothing may be running.
    pub(crate) fn load(&mut self, index: usize) -> Result<(), GeneratorError> {
        let Some(slot) = self.slots.get(index) else {
            return Err(GeneratorError::failed("there is no such model"));
        };
        if slot.loaded.is_some() {
            return Ok(());
        }
        let _within = spans::load(&slot.capabilities.id).entered();
        self.board.post_model(index, |model| model.state = ModelState::Loading);
        let begun = Instant::now();
        let loaded = self.make_room(index).and_then(|()| self.read(index));
        let id = self.slots.get(index).map(|slot| slot.capabilities.id.clone()).unwrap_or_default();
        match &loaded {
            Ok(()) => {
                tracing::info!(model = id, seconds = begun.elapsed().as_secs_f64(), "a model is loaded")
            }
            Err(error) => tracing::warn!(model = id, %error, "a model cannot be loaded"),
        }
        metrics::loaded(&id, loaded.is_ok(), begun.elapsed());
        let told = loaded.as_ref().err().map(ToString::to_string);
        self.board.post_model(index, |model| {
            model.state = if told.is_some() { ModelState::Failed } else { ModelState::Loaded };
            model.error = told;
        });
        loaded
    }

    fn read(&mut self, index: usize) -> Result<(), GeneratorError> {
        let Some(slot) = self.slots.get_mut(index) else { return Ok(()) };
        let loader = &mut self.loader;
        let generator = guarded(|| loader.load(&slot.capabilities.id))
            .unwrap_or_else(|panic| Err(GeneratorError::failed(format!("loading panicked: {panic}"))))?;
        // Now it knows itself better than its files told.
        slot.capabilities =
            ModelCapabilities { id: slot.capabilities.id.clone(), ..generator.capabilities() };
        let (capabilities, max_active) = (Arc::new(slot.capabilities.clone()), generator.max_active().max(1));
        slot.loaded = Some(Loaded { generator, max_active, used: Instant::now() });
        self.board.post_model(index, |model| model.capabilities = capabilities);
        Ok(())
    }

    /// Unloads what was not used for the longest time until the model fits.
    fn make_room(&mut self, index: usize) -> Result<(), GeneratorError> {
        let Some((id, Some(memory))) =
            self.slots.get(index).map(|slot| (slot.capabilities.id.clone(), slot.memory))
        else {
            return Ok(());
        };
        if let Some(reason) = self.rules.budget.and_then(|budget| too_large(&id, memory, budget)) {
            return Err(GeneratorError::OutOfMemory(reason));
        }
        while !self.fits(memory) {
            let used = |slot: &Slot<_>| slot.loaded.as_ref().map(|loaded| loaded.used);
            let loaded = self.slots.iter().enumerate().filter_map(|(index, slot)| Some((index, used(slot)?)));
            match loaded.min_by_key(|(_, used)| *used) {
                Some((oldest, _)) => self.unload(oldest),
                // Whether it can be loaded nevertheless is the loader's to say, with its own figures.
                None => return Ok(()),
            }
        }
        Ok(())
    }

    fn fits(&self, memory: ModelMemory) -> bool {
        let held = self.slots.iter().filter(|slot| slot.loaded.is_some()).filter_map(|slot| slot.memory);
        let (weights, workspace) =
            held.fold((memory.weights, memory.workspace), |(weights, workspace), held| {
                (weights.saturating_add(held.weights), workspace.max(held.workspace))
            });
        let in_budget = self.rules.budget.is_none_or(|budget| weights.saturating_add(workspace) <= budget);
        in_budget && self.loader.available().is_none_or(|available| memory.total() <= available)
    }

    /// Lets go of a model that nothing runs on.
    pub(crate) fn unload(&mut self, index: usize) {
        if !self.loader.reloads() {
            return;
        }
        let Some(slot) = self.slots.get_mut(index) else { return };
        let Some(loaded) = slot.loaded.take() else { return };
        if let Err(panic) = guarded(|| drop(loaded)) {
            tracing::error!(panic, "a model panicked when it was unloaded");
        }
        tracing::info!(model = slot.capabilities.id, "a model is unloaded");
        self.board.post_model(index, |model| model.state = ModelState::Unloaded);
    }

    /// When the next model will have been unused for too long.
    pub(crate) fn next_idle(&self) -> Option<Instant> {
        let idle = self.rules.idle_unload.filter(|_| self.loader.reloads())?;
        self.slots.iter().filter_map(|slot| Some(slot.loaded.as_ref()?.used + idle)).min()
    }

    /// Unloads what was unused for too long and is not `wanted` by a job.
    pub(crate) fn unload_idle(&mut self, now: Instant, wanted: impl Fn(&str) -> bool) {
        let Some(idle) = self.rules.idle_unload else { return };
        let unused = |slot: &Slot<_>| {
            slot.loaded.as_ref().is_some_and(|loaded| now.duration_since(loaded.used) >= idle)
        };
        for index in 0..self.slots.len() {
            if self.slots.get(index).is_some_and(|slot| unused(slot) && !wanted(&slot.capabilities.id)) {
                self.unload(index);
            }
        }
    }

    pub(crate) fn warms_up(&self) -> bool {
        self.rules.warm_up
    }
}

/// Why a model can never be loaded within the budget.
fn too_large(id: &str, memory: ModelMemory, budget: u64) -> Option<String> {
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    (memory.total() > budget).then(|| {
        format!(
            "model `{id}` needs {:.3} GB ({:.3} GB of weights, {:.3} GB to make a picture), but the budget is {:.3} GB",
            gigabytes(memory.total()),
            gigabytes(memory.weights),
            gigabytes(memory.workspace),
            gigabytes(budget)
        )
    })
}
