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

/// The values of all the parameters that an address has, each on or off. One that it does not have, or that stands there
/// twice, is refused.
pub(crate) fn flags<const N: usize>(uri: &Uri, names: [&str; N]) -> Result<[bool; N], ApiError> {
    let known = || names.join(", ");
    let mut seen = Vec::new();
    let mut faults = Vec::new();
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        let name = shown(&name);
        if !names.contains(&&*name) {
            let message = format!("is no parameter of this address; known: {}", known());
            faults.push(FieldError::new(field(&name), message).with_value(&*value).with_limit(known()));
        } else if seen.contains(&name) {
            faults.push(FieldError::new(&*name, "is given more than once").with_value(&*value));
        }
        seen.push(name);
    }
    if !faults.is_empty() {
        return Err(ApiError::invalid(faults));
    }
    let mut values = [false; N];
    for (value, name) in values.iter_mut().zip(names) {
        *value = flag(uri, name)?;
    }
    Ok(values)
}

/// What a parameter is called in a fault: also one without a name.
pub(crate) fn field(name: &str) -> &str {
    if name.is_empty() { "\"\"" } else { name }
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

    #[test]
    fn a_parameter_that_an_address_does_not_have_is_refused() {
        let both = |query: &str| flags(&format!("/v1/jobs{query}").parse().unwrap(), ["wait", "images"]);
        assert_eq!(both("?images=1&wait").unwrap(), [true, true]);
        assert_eq!(both("").unwrap(), [false, false]);
        for refused in
            ["?wiat=true", "?wait=true&a=b", "?wait=true&wait=false", "?wait=true&Images", "?wait=2"]
        {
            assert!(both(refused).is_err(), "{refused}");
        }
    }
}
