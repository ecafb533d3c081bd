//! What the worker's model is up to: written by whoever loads it and by the engine, read by the router.

use std::sync::Arc;

use operations_contract::ModelCapabilities;
use tokio::sync::watch;

/// Whether a model can serve.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ModelStatus {
    /// Not yet.
    Loading,
    /// It can.
    Ready(Arc<ModelCapabilities>),
    /// It could not be loaded, or the engine broke.
    Failed(String),
    /// No more: the engine has stopped.
    Stopped,
}

/// The place where the status is posted. Cloning shares it.
#[derive(Debug, Clone)]
pub struct ModelBoard(watch::Sender<ModelStatus>);

impl Default for ModelBoard {
    fn default() -> Self {
        Self::new()
    }
}

impl ModelBoard {
    /// A board that says "loading".
    pub fn new() -> Self {
        Self(watch::Sender::new(ModelStatus::Loading))
    }

    /// What it says.
    pub fn status(&self) -> ModelStatus {
        self.0.borrow().clone()
    }

    /// The model, while it can serve.
    pub fn ready(&self) -> Option<Arc<ModelCapabilities>> {
        match &*self.0.borrow() {
            ModelStatus::Ready(model) => Some(Arc::clone(model)),
            _ => None,
        }
    }

    /// Posts that the model could not be loaded, for [`JobRouter`](crate::JobRouter) and readiness to tell.
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
        self.0.send_replace(status);
    }

    async fn wait(&self, until: impl FnMut(&ModelStatus) -> bool) -> ModelStatus {
        match self.0.subscribe().wait_for(until).await {
            Ok(status) => status.clone(),
            // The sender lives as long as `self`.
            Err(_) => ModelStatus::Stopped,
        }
    }
}
