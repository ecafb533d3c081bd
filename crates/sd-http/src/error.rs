//! The one place where errors become responses.

use http::header::{ALLOW, CONNECTION, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use operations_contract::{ErrorBody, ErrorCode, ErrorDetail, FieldError};
use sd_engine::{CancelError, SubmitError};

use crate::body::{ResponseBody, json};

/// An error on its way to a client.
#[derive(Debug)]
pub(crate) struct ApiError {
    detail: Box<ErrorDetail>,
    header: Option<(HeaderName, HeaderValue)>,
}

/// How long a client waits before it asks again whether the model is loaded.
const NOT_READY_RETRY_S: u64 = 5;

impl ApiError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ErrorDetail::new(code, message).into()
    }

    pub(crate) fn invalid(fields: Vec<FieldError>) -> Self {
        ErrorDetail::about_fields(ErrorCode::InvalidRequest, fields).into()
    }

    pub(crate) fn no_job(id: &str) -> Self {
        let shown: String = id.chars().take(80).collect();
        Self::new(ErrorCode::NotFound, format!("there is no job `{shown}`, or no more"))
    }

    pub(crate) fn method_not_allowed(allowed: &'static str) -> Self {
        let message = format!("this address answers to {allowed}");
        let mut error = Self::new(ErrorCode::MethodNotAllowed, message);
        error.header = Some((ALLOW, HeaderValue::from_static(allowed)));
        error
    }

    pub(crate) fn into_response(self) -> Response<ResponseBody> {
        let code = self.detail.code;
        let mut response = json(status(code), &ErrorBody { error: *self.detail });
        let headers = response.headers_mut();
        if let Some((name, value)) = self.header {
            headers.insert(name, value);
        }
        match code {
            ErrorCode::Unauthorized => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // The rest of the body stays unread.
            ErrorCode::PayloadTooLarge | ErrorCode::Timeout => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

impl From<ErrorDetail> for ApiError {
    fn from(detail: ErrorDetail) -> Self {
        Self { detail: Box::new(detail), header: None }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let seconds = match &error {
            // At least one: 0 would invite to ask again at once.
            SubmitError::QueueFull { retry_after, .. } => {
                Some(retry_after.as_secs_f64().ceil().max(1.0) as u64)
            }
            SubmitError::NotReady(_) => Some(NOT_READY_RETRY_S),
            _ => None,
        };
        Self {
            detail: Box::new(error.detail()),
            header: seconds.map(|s| (RETRY_AFTER, HeaderValue::from(s))),
        }
    }
}

impl ApiError {
    pub(crate) fn from_cancel(error: CancelError, id: &str) -> Self {
        match error {
            CancelError::NotFound => Self::no_job(id),
            other => Self::new(ErrorCode::Conflict, other.to_string()),
        }
    }
}

fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidRequest => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::ModelNotFound | ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::Timeout => StatusCode::REQUEST_TIMEOUT,
        ErrorCode::Conflict | ErrorCode::Cancelled => StatusCode::CONFLICT,
        ErrorCode::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::UnsupportedOperation => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::QueueFull => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::OutOfMemory => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::ShuttingDown | ErrorCode::NotReady => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
