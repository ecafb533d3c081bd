//! Bodies: what goes out, and how much may come in.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Body;
use operations_contract::{ErrorCode, FieldError};
use serde::Serialize;

use crate::error::ApiError;
use crate::multipart;

/// The body of a response: bytes at once, or a stream of events.
pub type ResponseBody = UnsyncBoxBody<Bytes, Infallible>;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) fn full(bytes: impl Into<Bytes>) -> ResponseBody {
    Full::new(bytes.into()).boxed_unsync()
}

pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response<ResponseBody> {
    // The views are plain data: they always serialize.
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(full(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// How a body says that it is to be read.
#[derive(Debug)]
pub(crate) enum BodyKind {
    Json,
    /// `multipart/form-data` with this boundary.
    Form(String),
}

/// A body must be declared as what it is. Anything but JSON a page of another origin can send without being asked for
/// permission first, also to a worker that listens on loopback alone; of forms the gate looks where they come from.
pub(crate) fn kind(headers: &HeaderMap) -> Result<BodyKind, ApiError> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if let Some(boundary) = multipart::boundary(given) {
        return Ok(BodyKind::Form(boundary));
    }
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(BodyKind::Json);
    }
    let message = match essence {
        "" => "Content-Type is missing: send application/json or multipart/form-data".to_owned(),
        "multipart/form-data" => "Content-Type is multipart/form-data without a boundary".to_owned(),
        other => format!("Content-Type is {other}: send application/json or multipart/form-data"),
    };
    Err(ApiError::new(ErrorCode::UnsupportedMediaType, message))
}

/// Reads a body of at most `limit` bytes within `timeout`. One that announces more is not read at all.
pub(crate) async fn read<B>(body: B, limit: usize, timeout: Duration) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large(limit));
    }
    let collected = Limited::new(body, limit).collect();
    match tokio::time::timeout(timeout, collected).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(limit)),
        Ok(Err(error)) => {
            Err(ApiError::new(ErrorCode::InvalidRequest, format!("the body broke off: {error}")))
        }
        Err(_) => {
            let message = format!("the body did not arrive within {} s", timeout.as_secs());
            Err(ApiError::new(ErrorCode::Timeout, message))
        }
    }
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(ErrorCode::PayloadTooLarge, format!("the body is larger than {limit} bytes"))
}

pub(crate) fn parse_json(bytes: &[u8]) -> Result<serde_json::Value, ApiError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ApiError::invalid(vec![FieldError::new("body", format!("is not JSON: {error}"))]))
}
