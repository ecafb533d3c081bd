//! What the worker and its models are up to: written by the engine, read by the router.

use std::sync::Arc;

use operations_contract::{ModelCapabilities, ModelState, ModelView};
use tokio::sync::watch;

use crate::prompt_check::PromptCheck;

/// Whether the worker can serve.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ModelStatus {
    /// Not yet: its default model is loading.
    Loading,
    /// It can. This is its default model, which may have been unloaded since.
    Ready(Arc<ModelCapabilities>),
    /// The default model could not be loaded, or the engine broke.
    Failed(String),
    /// No more: the engine has stopped.
    Stopped,
}

/// One model of the worker.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ModelEntry {
    /// What it can do: read from its files before it was first loaded.
    pub capabilities: Arc<ModelCapabilities>,
    /// Whether it is loaded.
    pub state: ModelState,
    /// Why the last attempt to load it failed.
    pub error: Option<String>,
    /// The memory that its weights take or will take, in bytes, where that is known.
    pub memory_bytes: Option<u64>,
    /// Why it can never be loaded here.
    pub impossible: Option<String>,
    /// What tells whether it can read prompts; `None`: it reads all.
    pub prompts: Option<PromptCheck>,
}

impl ModelEntry {
    /// As clients are told it.
    pub fn view(&self) -> ModelView {
        ModelView {
            capabilities: (*self.capabilities).clone(),
            state: self.state,
            memory_bytes: self.memory_bytes,
            error: self.impossible.clone().or_else(|| self.error.clone()),
        }
    }
}

#[derive(Debug)]
struct Posted {
    worker: ModelStatus,
    /// The default first.
    models: Vec<ModelEntry>,
}

/// The place where all that is posted. Cloning shares it.
#[derive(Debug, Clone)]
pub struct ModelBoard(watch::Sender<Posted>);

/// The moments at which something on a board changes.
#[derive(Debug)]
pub struct BoardChanges(watch::Receiver<Posted>);

impl BoardChanges {
    /// Waits for the next change; false when the board is gone. Changes that come close together may be told as one.
    pub async fn next(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

impl Default for ModelBoard {
    fn default() -> Self {
        Self::new()
    }
}

impl ModelBoard {
    /// A board that says "loading".
    pub fn new() -> Self {
        Self(watch::Sender::new(Posted { worker: ModelStatus::Loading, models: Vec::new() }))
    }

    /// What it says of the worker.
    pub fn status(&self) -> ModelStatus {
        self.0.borrow().worker.clone()
    }

    /// The default model, while the worker can serve.
    pub fn ready(&self) -> Option<Arc<ModelCapabilities>> {
        match &self.0.borrow().worker {
            ModelStatus::Ready(model) => Some(Arc::clone(model)),
            _ => None,
        }
    }

    /// All models, the default first; none before their files were looked at.
    pub fn models(&self) -> Vec<ModelEntry> {
        self.0.borrow().models.clone()
    }

    /// The model that requests call so.
    pub fn find(&self, name: &str) -> Option<ModelEntry> {
        self.0.borrow().models.iter().find(|model| model.capabilities.answers_to(name)).cloned()
    }

    /// Tells that something on it has changed, from now on.
    pub fn changes(&self) -> BoardChanges {
        BoardChanges(self.0.subscribe())
    }

    /// Posts that the worker cannot serve, for [`JobRouter`](crate::JobRouter) and readiness to tell.
    pub fn failed(&self, reason: impl Into<String>) {
        self.post(ModelStatus::Failed(reason.into()));
    }

    /// Waits until it says something else than "loading".
    pub async fn settled(&self) -> ModelStatus {
        self.wait(|status| !matches!(status, ModelStatus::Loading)).await
    }

    /// Waits until the engine has stopped.
    pub async fn stopped(&self) {
        self.wait(|status| matches!(status, ModelStatus::Stopped | ModelStatus::Failed(_))).await;
    }

    pub(crate) fn post(&self, status: ModelStatus) {
        self.0.send_modify(|posted| posted.worker = status);
    }

    pub(crate) fn post_models(&self, models: Vec<ModelEntry>) {
        self.0.send_modify(|posted| posted.models = models);
    }

    /// Changes what is said of model `index`.
    pub(crate) fn post_model(&self, index: usize, change: impl FnOnce(&mut ModelEntry)) {
        self.0.send_modify(|posted| {
            if let Some(model) = posted.models.get_mut(index) {
                change(model);
            }
        });
    }

    async fn wait(&self, mut until: impl FnMut(&ModelStatus) -> bool) -> ModelStatus {
        match self.0.subscribe().wait_for(|posted| until(&posted.worker)).await {
            Ok(posted) => posted.worker.clone(),
            // The sender lives as long as `self`.
            Err(_) => ModelStatus::Stopped,
        }
    }
}
