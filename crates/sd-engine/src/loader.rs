//! Where models come from, and the rules about how many are loaded at once.

use std::time::Duration;

use operations_contract::ModelCapabilities;

use crate::generator::{Generator, GeneratorError};
use crate::prompt_check::PromptCheck;

/// Gives the engine its models. It is moved to the engine's thread, where models are loaded too: between jobs, so that
/// nothing that runs is stopped, and so that no two models are read at the same time.
pub trait ModelLoader: Send + 'static {
    /// What a loaded model is.
    type Generator: Generator;

    /// All models, the default first; at least one. Asked once, before any is loaded.
    fn offers(&self) -> Vec<ModelOffer>;

    /// Loads the model of this id. A model that was unloaded may be asked for again.
    fn load(&mut self, id: &str) -> Result<Self::Generator, GeneratorError>;

    /// What tells whether the model of this id can read prompts, loaded or not: asked once. `None`: it reads all.
    fn prompt_check(&self, id: &str) -> Option<PromptCheck> {
        let _ = id;
        None
    }

    /// Whether a model that was unloaded can be loaded again. If not, all stay loaded.
    fn reloads(&self) -> bool {
        true
    }

    /// The memory in bytes that the device can still give; `None` where that is not known.
    fn available(&self) -> Option<u64> {
        None
    }
}

/// A model that can be loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelOffer {
    /// What it can do, as far as its files tell; what it says when it is loaded counts from then on.
    pub capabilities: ModelCapabilities,
    /// The memory that it will take, where that is known.
    pub memory: Option<ModelMemory>,
}

/// Estimated memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelMemory {
    /// Of the weights, as long as the model is loaded.
    pub weights: u64,
    /// Of the work on one picture of the usual size.
    pub workspace: u64,
}

impl ModelMemory {
    /// Both together.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.workspace)
    }
}

/// When models are loaded and unloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModelRules {
    /// What all loaded models and the work on a picture may take together, in bytes. Without a budget, models are unloaded
    /// when the device has no memory left for another.
    pub budget: Option<u64>,
    /// How long a model stays loaded unused; `None`: for ever.
    pub idle_unload: Option<Duration>,
    /// Whether a model takes one step on a small picture before the worker is ready, and after it was loaded by request.
    pub warm_up: bool,
}

/// The loader of a generator that is there already: the engine's only model, which is never unloaded.
#[derive(Debug)]
pub struct Only<G>(Option<G>, ModelCapabilities);

impl<G: Generator> Only<G> {
    /// Takes the generator.
    pub fn new(generator: G) -> Self {
        let capabilities = generator.capabilities();
        Self(Some(generator), capabilities)
    }
}

impl<G: Generator> ModelLoader for Only<G> {
    type Generator = G;

    fn offers(&self) -> Vec<ModelOffer> {
        vec![ModelOffer { capabilities: self.1.clone(), memory: None }]
    }

    fn prompt_check(&self, _id: &str) -> Option<PromptCheck> {
        self.0.as_ref()?.prompt_check()
    }

    fn reloads(&self) -> bool {
        false
    }

    fn load(&mut self, id: &str) -> Result<G, GeneratorError> {
        self.0.take().ok_or_else(|| GeneratorError::failed(format!("model `{id}` cannot be loaded again")))
    }
}
