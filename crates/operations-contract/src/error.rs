//! The one form in which errors are told.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What went wrong, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// The request is broken; `fields` says where.
    InvalidRequest,
    /// No token, or a wrong one.
    Unauthorized,
    /// The token is good, but not for this; or a page of another origin asks.
    Forbidden,
    /// No such model on this worker.
    ModelNotFound,
    /// The model cannot do what is asked.
    UnsupportedOperation,
    /// Too many jobs wait already.
    QueueFull,
    /// The device's memory did not suffice.
    OutOfMemory,
    /// The deadline passed, or the request took too long to arrive.
    Timeout,
    /// Cancelled by a client.
    Cancelled,
    /// The worker's fault.
    InferenceFailed,
    /// The worker is going down.
    ShuttingDown,
    /// No model is loaded yet.
    NotReady,
    /// No such route, job or image.
    NotFound,
    /// The route exists, for other methods.
    MethodNotAllowed,
    /// The body is larger than allowed.
    PayloadTooLarge,
    /// The body is not declared as JSON, or as a form where one is taken.
    UnsupportedMediaType,
    /// The job is in a state that forbids this.
    Conflict,
    /// The same `Idempotency-Key` came with another request before.
    IdempotencyKeyReused,
    /// There is no room for another job on the worker's disk.
    StorageFull,
    /// The worker could not write down or read a job.
    StorageFailed,
}

impl ErrorCode {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::ModelNotFound => "model_not_found",
            Self::UnsupportedOperation => "unsupported_operation",
            Self::QueueFull => "queue_full",
            Self::OutOfMemory => "out_of_memory",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::InferenceFailed => "inference_failed",
            Self::ShuttingDown => "shutting_down",
            Self::NotReady => "not_ready",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Conflict => "conflict",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::StorageFull => "storage_full",
            Self::StorageFailed => "storage_failed",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One broken field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FieldError {
    /// Its path: `steps`, `loras[1].scale`.
    pub field: String,
    /// What was sent, shortened; absent where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// What is wrong with it.
    pub message: String,
    /// What is allowed, where that is a bound: `1..=150`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
}

impl FieldError {
    /// A broken field without a value.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), value: None, message: message.into(), limit: None }
    }

    /// With what was sent; long texts are cut, lists and objects are left out.
    #[must_use]
    pub fn with_value(mut self, value: impl Into<Value>) -> Self {
        const SHOWN: usize = 80;
        self.value = match value.into() {
            Value::String(text) if text.chars().count() > SHOWN => {
                Some(Value::String(text.chars().take(SHOWN).chain(['…']).collect()))
            }
            Value::Array(_) | Value::Object(_) => None,
            other => Some(other),
        };
        self
    }

    /// With what is allowed.
    #[must_use]
    pub fn with_limit(mut self, limit: impl fmt::Display) -> Self {
        self.limit = Some(limit.to_string());
        self
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// An error as a client sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ErrorDetail {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// The broken fields, where the request is at fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldError>,
}

impl ErrorDetail {
    /// An error without fields.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), fields: Vec::new() }
    }

    /// An error about fields; the message tells them all.
    pub fn about_fields(code: ErrorCode, fields: Vec<FieldError>) -> Self {
        let message = fields.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Self { code, message, fields }
    }
}

impl fmt::Display for ErrorDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

/// The body of every HTTP answer that is an error: `{"error": {...}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// A request that is no valid operation, with every reason.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", .fields.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct InvalidOperation {
    fields: Vec<FieldError>,
}

impl InvalidOperation {
    pub(crate) fn new(fields: Vec<FieldError>) -> Self {
        Self { fields }
    }

    /// The broken fields; at least one.
    pub fn fields(&self) -> &[FieldError] {
        &self.fields
    }

    /// The broken fields; at least one.
    pub fn into_fields(self) -> Vec<FieldError> {
        self.fields
    }
}

impl From<InvalidOperation> for ErrorDetail {
    fn from(invalid: InvalidOperation) -> Self {
        Self::about_fields(ErrorCode::InvalidRequest, invalid.fields)
    }
}
