//! What becomes of a submission.

use std::sync::Arc;
use std::time::Duration;

use operations_contract::{ErrorCode, ErrorDetail, FieldError, JobId};

use crate::store::StoreError;

/// What comes with an operation beside its fields: it concerns the job, not the picture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubmitOptions {
    /// Who asks, by the name of the token: turns are fair between callers.
    pub caller: Option<Arc<str>>,
    /// A name of the caller's choice: the same operation under the same name is the same job, as long as the job is
    /// remembered.
    pub idempotency_key: Option<String>,
    /// What tells whether two requests under the same name are the same, where the operation does not: a hash of the request as
    /// it came, for one that is translated by settings which may change meanwhile.
    pub fingerprint: Option<[u8; 32]>,
    /// The trace that the request is a part of, as `traceparent` of the W3C's Trace Context tells it. Nobody has looked at it
    /// yet: see [`JobRouter::with_trace_parents`](crate::JobRouter::with_trace_parents).
    pub trace_parent: Option<Arc<str>>,
    /// What the request is called in the caller's own log. The log names it beside the job.
    pub request_id: Option<Arc<str>>,
}

impl SubmitOptions {
    /// Of this caller.
    #[must_use]
    pub fn by(caller: Option<Arc<str>>) -> Self {
        Self { caller, ..Self::default() }
    }

    /// Under this name of the caller's choice.
    #[must_use]
    pub fn under(mut self, idempotency_key: Option<String>) -> Self {
        self.idempotency_key = idempotency_key;
        self
    }

    /// Of a request with this hash.
    #[must_use]
    pub fn sent_as(mut self, fingerprint: [u8; 32]) -> Self {
        self.fingerprint = Some(fingerprint);
        self
    }

    /// As a part of this trace.
    #[must_use]
    pub fn within(mut self, trace_parent: Option<Arc<str>>) -> Self {
        self.trace_parent = trace_parent;
        self
    }

    /// By the request of this name.
    #[must_use]
    pub fn asked_by(mut self, request_id: Option<Arc<str>>) -> Self {
        self.request_id = request_id;
        self
    }
}

/// A job exists.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Accepted {
    /// Its name.
    pub job_id: JobId,
    /// Seed of its first image, as sent or as drawn.
    pub seed: u64,
    /// Whether it existed already: the same was submitted before under the same key.
    pub repeated: bool,
}

/// No job exists.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// Fields are broken: these, all of them.
    #[error("{}", told(.0))]
    Invalid(Vec<FieldError>),
    /// The worker has no such model.
    #[error("no model `{name}` here; there is {there}")]
    ModelNotFound {
        /// As asked for.
        name: String,
        /// Those that are there.
        there: String,
    },
    /// The model can never be loaded within the worker's memory.
    #[error("{0}")]
    ModelTooLarge(String),
    /// The model cannot do what these fields ask for.
    #[error("{}", told(.0))]
    Unsupported(Vec<FieldError>),
    /// Too many jobs wait.
    #[error("{capacity} jobs wait already; try again in {} s", .retry_after.as_secs_f64().ceil().max(1.0))]
    QueueFull {
        /// How many may wait.
        capacity: usize,
        /// When a place may be free.
        retry_after: Duration,
    },
    /// The caller has submitted something else under the same key.
    #[error("this Idempotency-Key came with another request before, which became {job_id}")]
    KeyReused {
        /// What became of that one.
        job_id: JobId,
    },
    /// There is no room to write the job down.
    #[error("no room for another job: {0}")]
    StorageFull(String),
    /// The job could not be written down for another reason.
    #[error("the job could not be written down: {0}")]
    StorageFailed(String),
    /// No model can serve, for this reason.
    #[error("{0}")]
    NotReady(String),
    /// The worker is going down.
    #[error("the worker is shutting down")]
    ShuttingDown,
}

fn told(fields: &[FieldError]) -> String {
    fields.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl SubmitError {
    /// What it is, for programs.
    pub fn code(&self) -> ErrorCode {
        self.detail().code
    }

    /// As a client is told.
    pub fn detail(&self) -> ErrorDetail {
        let (code, fields) = match self {
            Self::Invalid(fields) => (ErrorCode::InvalidRequest, fields.clone()),
            Self::ModelNotFound { name, .. } => {
                let fault = FieldError::new("model", "is not on this worker").with_value(name.as_str());
                (ErrorCode::ModelNotFound, vec![fault])
            }
            Self::ModelTooLarge(_) => (ErrorCode::OutOfMemory, Vec::new()),
            Self::Unsupported(fields) => (ErrorCode::UnsupportedOperation, fields.clone()),
            Self::QueueFull { .. } => (ErrorCode::QueueFull, Vec::new()),
            Self::KeyReused { .. } => (ErrorCode::IdempotencyKeyReused, Vec::new()),
            Self::StorageFull(_) => (ErrorCode::StorageFull, Vec::new()),
            Self::StorageFailed(_) => (ErrorCode::StorageFailed, Vec::new()),
            Self::NotReady(_) => (ErrorCode::NotReady, Vec::new()),
            Self::ShuttingDown => (ErrorCode::ShuttingDown, Vec::new()),
        };
        ErrorDetail { code, message: self.to_string(), fields }
    }
}

impl From<StoreError> for SubmitError {
    fn from(error: StoreError) -> Self {
        match error.code() {
            ErrorCode::StorageFull => Self::StorageFull(error.to_string()),
            _ => Self::StorageFailed(error.to_string()),
        }
    }
}
