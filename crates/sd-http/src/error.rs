//! The one place where errors become responses.

use http::header::{ALLOW, CONNECTION, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use operations_contract::{ErrorBody, ErrorCode, ErrorDetail, FieldError};
use sd_engine::{CancelError, SubmitError};
use serde::Serialize;

use crate::body::{ResponseBody, json};

/// An error on its way to a client.
#[derive(Debug)]
pub(crate) struct ApiError {
    detail: Box<ErrorDetail>,
    header: Option<(HeaderName, HeaderValue)>,
    /// Whether the engine refused a submission by it, and has counted that.
    is_counted: bool,
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
        self.respond(|error| ErrorBody { error })
    }

    pub(crate) fn code(&self) -> ErrorCode {
        self.detail.code
    }

    pub(crate) fn is_counted(&self) -> bool {
        self.is_counted
    }

    /// The same error about fields by other names: for interfaces whose fields are called otherwise. Messages that speak of
    /// another field name it so, too.
    pub(crate) fn renamed(mut self, name: impl Fn(&str) -> Option<String>) -> Self {
        if self.detail.fields.is_empty() {
            return self;
        }
        for fault in &mut self.detail.fields {
            fault.message = reworded(&fault.message, &name);
            if let Some(name) = name(&fault.field) {
                fault.field = name;
            }
        }
        let fields = std::mem::take(&mut self.detail.fields);
        // A sentence of its own stays; one that lists the fields is made again.
        match self.detail.code {
            ErrorCode::InvalidRequest | ErrorCode::UnsupportedOperation => {
                *self.detail = ErrorDetail::about_fields(self.detail.code, fields);
            }
            _ => self.detail.fields = fields,
        }
        self
    }

    /// Answers with a body in another form; status and headers are the same everywhere.
    pub(crate) fn respond<T: Serialize>(self, body: impl FnOnce(ErrorDetail) -> T) -> Response<ResponseBody> {
        let code = self.detail.code;
        let mut response = json(status(code), &body(*self.detail));
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

/// A message with the fields of the contract by other names. Names of one word are ordinary words as well: they stay.
fn reworded(message: &str, name: impl Fn(&str) -> Option<String>) -> String {
    let of_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut told = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(start) = rest.find(of_name) {
        let (before, from) = rest.split_at(start);
        let (word, after) = from.split_at(from.find(|c| !of_name(c)).unwrap_or(from.len()));
        let renamed = if word.contains('_') { name(word) } else { None };
        told.push_str(before);
        told.push_str(renamed.as_deref().unwrap_or(word));
        rest = after;
    }
    told + rest
}

impl From<ErrorDetail> for ApiError {
    fn from(detail: ErrorDetail) -> Self {
        Self { detail: Box::new(detail), header: None, is_counted: false }
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
            is_counted: true,
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
        ErrorCode::UnsupportedOperation | ErrorCode::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::QueueFull => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::OutOfMemory => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::ShuttingDown | ErrorCode::NotReady => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_called_otherwise_in_messages_too() {
        let fault = || {
            let message = "has 64 x 64 pixels, init_image 128 x 128: they must be equally large";
            FieldError::new("mask_image", message)
        };
        let theirs = |ours: &str| match ours {
            "init_image" => Some("image".to_owned()),
            "mask_image" => Some("mask".to_owned()),
            "width" => Some("size".to_owned()),
            _ => None,
        };
        let renamed = ApiError::invalid(vec![fault()]).renamed(theirs);
        assert_eq!(
            renamed.detail.message,
            "mask: has 64 x 64 pixels, image 128 x 128: they must be equally large"
        );
        for (message, told) in [
            ("the width of mask_image", "the width of mask"),
            ("of no_image, mask_images, xmask_image", "of no_image, mask_images, xmask_image"),
            ("é init_image", "é image"),
            ("", ""),
        ] {
            assert_eq!(reworded(message, theirs), told);
        }
    }
}
