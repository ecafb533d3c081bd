//! `traceparent` of the W3C's Trace Context: the trace that a request is a part of.

use std::sync::Arc;

use http::HeaderMap;

/// The header.
pub(crate) const NAME: &str = "traceparent";
/// The lengths of version, trace, parent and flags, all in lower-case hexadecimal. Later versions may have more behind them.
const PARTS: [usize; 4] = [2, 32, 16, 2];
/// What a later version may have at most.
const MAX_LEN: usize = 256;

/// The value, if there is one and it has the right form; whatever else stands there is ignored, as the standard wants it.
pub(crate) fn parent(headers: &HeaderMap) -> Option<Arc<str>> {
    let mut values = headers.get_all(NAME).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let text = value.to_str().ok()?;
    is_well_formed(text).then(|| text.into())
}

fn is_well_formed(text: &str) -> bool {
    let hexadecimal = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = text.split('-');
    let known =
        PARTS.iter().all(|len| parts.next().is_some_and(|part| part.len() == *len && hexadecimal(part)));
    let has_more = parts.next().is_some();
    known && text.len() <= MAX_LEN && !text.starts_with("ff") && (!has_more || !text.starts_with("00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(values: &[&str]) -> Option<Arc<str>> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(NAME, value.parse().unwrap());
        }
        parent(&headers)
    }

    #[test]
    fn the_form_of_the_standard_is_taken_and_nothing_else() {
        let later = format!("cc{}-what-comes", &GOOD[2..]);
        for good in [GOOD, &later] {
            assert_eq!(of(&[good]).as_deref(), Some(good));
        }
        let bad = [
            "".to_owned(),
            "00".to_owned(),
            GOOD[..54].to_owned(),
            GOOD.to_uppercase(),
            format!("ff{}", &GOOD[2..]),
            format!("{GOOD}-more"),
            format!("{GOOD}\t"),
            GOOD.replace('b', "g"),
            GOOD.replace('-', "_"),
            format!("{later}{}", "x".repeat(MAX_LEN)),
        ];
        for bad in bad {
            assert_eq!(of(&[&bad]), None, "{bad}");
        }
        assert_eq!(of(&[GOOD, GOOD]), None, "one of two cannot be chosen");
        assert_eq!(of(&[]), None);
    }
}
