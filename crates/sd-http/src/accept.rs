//! `Accept`: whether a client that waits wants the finished job or its picture.

use http::HeaderMap;
use http::header::ACCEPT;
use operations_contract::{FieldError, ImageFormat};
use serde_json::{Value, json};

use crate::error::ApiError;

/// What a finished job is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The job as JSON.
    Job,
    /// The first picture, in one of these formats, the best one first.
    Picture(Vec<ImageFormat>),
}

impl Wanted {
    /// What the client likes best of what there is; among equals, what it names first. JSON where it says nothing.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut ranges: Vec<(f32, String)> = values.flat_map(|value| value.split(',')).map(range).collect();
        ranges.retain(|(weight, _)| *weight > 0.0);
        // The sort is stable.
        ranges.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let mut formats: Vec<ImageFormat> = Vec::new();
        for (_, media) in &ranges {
            match media.as_str() {
                "application/json" | "application/*" | "*/*" if formats.is_empty() => return Self::Job,
                "image/*" => formats.extend(ImageFormat::ALL),
                _ => formats
                    .extend(ImageFormat::ALL.iter().filter(|format| format.media_type() == media.as_str())),
            }
        }
        match formats.is_empty() {
            true => Self::Job,
            false => Self::Picture(formats),
        }
    }

    /// Asks for a format that the client takes, where the request leaves it open; refuses one that it does not take.
    pub(crate) fn settle_format(&self, request: &mut Value) -> Result<(), ApiError> {
        let Self::Picture(formats) = self else { return Ok(()) };
        let Some(fields) = request.as_object_mut() else { return Ok(()) };
        let output = fields.entry("output").or_insert(Value::Null);
        if output.is_null() {
            *output = json!({});
        }
        // Whatever else it is, the contract refuses it.
        let Some(output) = output.as_object_mut() else { return Ok(()) };
        match output.get("format").filter(|format| !format.is_null()) {
            None => drop(output.insert("format".into(), formats[0].as_str().into())),
            Some(Value::String(name)) => {
                let asked = name.parse::<ImageFormat>().ok();
                if let Some(asked) = asked.filter(|asked| !formats.contains(asked)) {
                    let limit =
                        formats.iter().map(|format| format.media_type()).collect::<Vec<_>>().join(", ");
                    let message = format!("is `{asked}`, and Accept takes {limit} only");
                    let fault = FieldError::new("output.format", message).with_value(asked.as_str());
                    return Err(ApiError::invalid(vec![fault.with_limit(limit)]));
                }
            }
            Some(_) => {}
        }
        Ok(())
    }
}

/// One entry: its weight and its media type, in lower case.
fn range(entry: &str) -> (f32, String) {
    let mut parts = entry.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    (weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0)), media.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use ImageFormat::{Jpeg, Png, Webp};

    use super::*;

    fn wanted(accept: &str) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        Wanted::of(&headers)
    }

    #[test]
    fn the_best_that_there_is_counts() {
        for job in [
            "",
            "*/*",
            "application/json",
            "application/json, image/png",
            "text/html",
            "image/png;q=0",
            "image/png;q=0.5, application/json",
            "image/gif",
            "*/*, image/png",
        ] {
            assert_eq!(wanted(job), Wanted::Job, "{job}");
        }
        for (accept, formats) in [
            ("image/png", vec![Png]),
            ("IMAGE/PNG", vec![Png]),
            ("image/webp, application/json", vec![Webp]),
            ("application/json;q=0.5, image/jpeg", vec![Jpeg]),
            ("image/avif,image/webp,image/png,*/*;q=0.8", vec![Webp, Png]),
            ("image/*", vec![Png, Jpeg, Webp]),
        ] {
            assert_eq!(wanted(accept), Wanted::Picture(formats), "{accept}");
        }
        assert_eq!(Wanted::of(&HeaderMap::new()), Wanted::Job);
    }

    #[test]
    fn the_format_follows_from_accept_or_is_refused() {
        let wanted = Wanted::Picture(vec![Webp, Png]);
        let mut open = json!({"prompt": "x"});
        wanted.settle_format(&mut open).unwrap();
        assert_eq!(open["output"]["format"], "webp");
        let mut chosen = json!({"output": {"format": "png"}});
        wanted.settle_format(&mut chosen).unwrap();
        assert_eq!(chosen, json!({"output": {"format": "png"}}));
        assert!(wanted.settle_format(&mut json!({"output": {"format": "jpeg"}})).is_err());
        // What the contract refuses is left to it.
        for broken in [
            json!(7),
            json!({"output": 7}),
            json!({"output": {"format": 7}}),
            json!({"output": {"format": "gif"}}),
        ] {
            let mut value = broken.clone();
            wanted.settle_format(&mut value).unwrap();
            assert_eq!(value, broken);
        }
    }
}
