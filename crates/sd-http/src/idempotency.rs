//! `Idempotency-Key`: a name that a client gives a request, so that sending it again does nothing new.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use operations_contract::FieldError;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::error::ApiError;

/// The longest key.
pub(crate) const MAX_CHARS: usize = 255;
/// The header.
pub(crate) const NAME: &str = "Idempotency-Key";

/// The answer to a request that came before: nothing new was begun.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Says in the headers that the job was there before.
pub(crate) fn mark(headers: &mut HeaderMap, repeated: bool) {
    if repeated {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
}

/// What tells a request to another interface apart from others: where it went, what its fields say, and its files. Fields
/// that are about the answer alone do not count, nor do those that are null: they count as absent.
pub(crate) fn fingerprint(
    call: &str,
    fields: &Map<String, Value>,
    about_the_answer: &[&str],
    files: &[(&str, &[u8])],
) -> [u8; 32] {
    let mut hash = Sha256::new();
    // Lengths before contents: no two requests run together to the same bytes.
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    add(call.as_bytes());
    for (name, bytes) in files {
        add(name.as_bytes());
        add(bytes);
    }
    // The fields of an object come in the order of their names, however they were sent.
    for (name, value) in fields {
        if !value.is_null() && !about_the_answer.contains(&name.as_str()) {
            add(name.as_bytes());
            add(value.to_string().as_bytes());
        }
    }
    hash.finalize().into()
}

/// The key of a request, if it has one.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(NAME).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let fault = |message: &str| FieldError::new(NAME, message);
    if values.next().is_some() {
        return Err(ApiError::invalid(vec![fault("is sent more than once")]));
    }
    let limit = format!("1..={MAX_CHARS}");
    let visible = |value: &&[u8]| value.iter().all(u8::is_ascii_graphic);
    // Visible ASCII is text.
    match Some(value.as_bytes()).filter(visible).map(String::from_utf8_lossy) {
        Some(text) if (1..=MAX_CHARS).contains(&text.len()) => Ok(Some(text.into_owned())),
        Some(text) if !text.is_empty() => {
            let message = format!("has {} characters; at most {MAX_CHARS} are allowed", text.len());
            Err(ApiError::invalid(vec![fault(&message).with_limit(limit).with_value(&*text)]))
        }
        _ => {
            let message = format!("must be {limit} visible ASCII characters, without spaces");
            Err(ApiError::invalid(vec![fault(&message).with_limit(limit)]))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(call: &str, fields: &Value, files: &[(&str, &[u8])]) -> [u8; 32] {
        fingerprint(call, fields.as_object().unwrap(), &["stream"], files)
    }

    #[test]
    fn what_a_request_says_counts_and_not_how_it_is_answered() {
        let plain = of("edits", &json!({"prompt": "a", "n": 2}), &[("image", b"12")]);
        for same in
            [json!({"n": 2, "prompt": "a"}), json!({"prompt": "a", "n": 2, "stream": true, "user": null})]
        {
            assert_eq!(of("edits", &same, &[("image", b"12")]), plain, "{same}");
        }
        for other in
            [json!({"prompt": "a"}), json!({"prompt": "b", "n": 2}), json!({"prompt": "a", "n": "2"})]
        {
            assert_ne!(of("edits", &other, &[("image", b"12")]), plain, "{other}");
        }
        let fields = json!({"prompt": "a", "n": 2});
        assert_ne!(of("variations", &fields, &[("image", b"12")]), plain);
        for files in [&[][..], &[("image", b"1" as &[u8]), ("image", b"2")], &[("mask", b"12")]] {
            assert_ne!(of("edits", &fields, files), plain);
        }
    }
}
