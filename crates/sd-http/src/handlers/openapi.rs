//! `GET /openapi.json`

use std::sync::LazyLock;

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};

use crate::body::{ResponseBody, full};
use crate::openapi;

/// It never changes while the worker runs.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| openapi::document().to_string().into());

pub(crate) fn handle() -> Response<ResponseBody> {
    let mut response = Response::new(full(DOCUMENT.clone()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
