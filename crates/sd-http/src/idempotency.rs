//! `Idempotency-Key`: a name that a client gives a request, so that sending it again does nothing new.

use http::HeaderMap;
use operations_contract::FieldError;

use crate::error::ApiError;

/// The longest key.
pub(crate) const MAX_CHARS: usize = 255;
/// The header.
pub(crate) const NAME: &str = "Idempotency-Key";

/// The key of a request, if it has one.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(NAME).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let fault = |message: &str| FieldError::new(NAME, message);
    if values.next().is_some() {
        return Err(ApiError::invalid(vec![fault("is sent more than once")]));
    }
    let text = value.to_str().map_or("", str::trim);
    match text.len() {
        0 => Err(ApiError::invalid(vec![fault("must be visible ASCII characters")])),
        1..=MAX_CHARS => Ok(Some(text.to_owned())),
        len => {
            let fault = fault(&format!("has {len} characters")).with_limit(format!("1..={MAX_CHARS}"));
            Err(ApiError::invalid(vec![fault.with_value(text)]))
        }
    }
}
