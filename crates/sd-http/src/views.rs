//! The answers that are this crate's own: all others are the contract's.

use schemars::JsonSchema;
use serde::Serialize;

/// `GET /v1/info`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Info {
    /// `sd-worker`.
    pub(crate) implementation: &'static str,
    /// The version of the worker.
    pub(crate) version: String,
    /// What it was built with.
    pub(crate) features: Vec<String>,
    /// The model that serves; absent while none does.
    pub(crate) model: Option<String>,
    /// Where it runs: `cpu`, `cuda:0`, ...
    pub(crate) device: Option<String>,
    /// The type of its numbers.
    pub(crate) dtype: Option<String>,
    /// The queue.
    pub(crate) queue: QueueView,
    /// What requests may hold at most.
    pub(crate) limits: Limits,
}

/// How full the queue is.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct QueueView {
    /// Jobs that wait.
    pub(crate) waiting: usize,
    /// Jobs that may wait.
    pub(crate) capacity: usize,
}

/// What requests may hold at most, whatever the model.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Limits {
    /// Bytes of a body.
    pub(crate) max_body_bytes: usize,
    /// Characters of a prompt.
    pub(crate) max_prompt_chars: usize,
    /// Pixels of a side.
    pub(crate) max_side: u64,
    /// Steps.
    pub(crate) max_steps: u64,
    /// Images of a job.
    pub(crate) max_images: u64,
    /// Milliseconds until a deadline.
    pub(crate) max_deadline_ms: u64,
}

/// `GET /health`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Health {
    /// `ok`.
    pub(crate) status: &'static str,
}

/// `GET /ready`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Ready {
    /// `ready`.
    pub(crate) status: &'static str,
    /// The model that serves.
    pub(crate) model: String,
}
