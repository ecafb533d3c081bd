//! `X-Request-Id`: the client's own, where it is harmless, or a new one.

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ones would fill the logs.
const MAX_LEN: usize = 128;

pub(crate) fn of(headers: &HeaderMap) -> HeaderValue {
    let harmless = |value: &&HeaderValue| {
        (1..=MAX_LEN).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    headers.get(X_REQUEST_ID).filter(harmless).cloned().unwrap_or_else(fresh)
}

fn fresh() -> HeaderValue {
    // A UUID is hexadecimal digits and dashes.
    HeaderValue::try_from(Uuid::new_v4().to_string()).unwrap_or(HeaderValue::from_static("-"))
}
