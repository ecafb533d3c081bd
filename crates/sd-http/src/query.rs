//! What stands behind the `?` of an address.

use http::Uri;
use operations_contract::FieldError;

use crate::error::ApiError;

/// The value of a parameter that is on or off; absent: off. `?wait` alone is on.
pub(crate) fn flag(uri: &Uri, name: &str) -> Result<bool, ApiError> {
    let mut pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let Some((_, value)) = pairs.find(|(key, _)| key == name) else { return Ok(false) };
    match value.as_ref() {
        "" | "true" | "True" | "1" => Ok(true),
        "false" | "False" | "0" => Ok(false),
        other => {
            let fault = FieldError::new(name, format!("`{}` is neither true nor false", shown(other)));
            Err(ApiError::invalid(vec![fault.with_value(other)]))
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_on_off_or_refused() {
        let wait = |query: &str| flag(&format!("/v1/jobs{query}").parse().unwrap(), "wait");
        for on in ["?wait", "?wait=true", "?a=b&wait=1", "?wait=true#x"] {
            assert!(wait(on).unwrap(), "{on}");
        }
        for off in ["", "?", "?waiting=true", "?wait=false", "?images=true"] {
            assert!(!wait(off).unwrap(), "{off}");
        }
        assert!(wait("?wait=later").is_err());
    }
}
