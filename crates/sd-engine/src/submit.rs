//! What becomes of a submission.

use std::sync::Arc;
use std::time::Duration;

use operations_contract::{ErrorCode, ErrorDetail, FieldError, JobId};

/// What comes with an operation beside its fields: it concerns the job, not the picture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubmitOptions {
    /// Who asks, by the name of the token: turns are fair between callers.
    pub caller: Option<Arc<str>>,
}

impl SubmitOptions {
    /// Of this caller.
    #[must_use]
    pub fn by(caller: Option<Arc<str>>) -> Self {
        Self { caller }
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
    #[error("{capacity} jobs wait already; try again in {} s", .retry_after.as_secs())]
    QueueFull {
        /// How many may wait.
        capacity: usize,
        /// When a place may be free.
        retry_after: Duration,
    },
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
            Self::NotReady(_) => (ErrorCode::NotReady, Vec::new()),
            Self::ShuttingDown => (ErrorCode::ShuttingDown, Vec::new()),
        };
        ErrorDetail { code, message: self.to_string(), fields }
    }
}
