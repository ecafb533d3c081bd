//! The body of a request: JSON for generations, a form with files for the two others.

use bytes::Bytes;
use http::HeaderMap;
use operations_contract::{ErrorCode, FieldError, field_of_form};
use serde_json::{Map, Value};
use tokio::runtime::Handle;

use super::Call;
use crate::body::{self, BodyKind};
use crate::error::ApiError;
use crate::idempotency;
use crate::multipart::{self, Part};

/// Fields of OpenAI's that are texts whatever stands in them.
const TEXTS: [&str; 3] = ["user", "safety_identifier", "size"];

/// Fields that say how the answer looks, and nothing about the job.
const ABOUT_THE_ANSWER: [&str; 3] = ["stream", "partial_images", "response_format"];

/// A request as it came: its fields, and its files.
#[derive(Debug, Default)]
pub(crate) struct Form {
    pub(crate) fields: Map<String, Value>,
    pub(crate) images: Vec<Bytes>,
    pub(crate) mask: Option<Bytes>,
}

/// How the body is to be read. Only generations are JSON, and they are nothing else.
pub(crate) fn kind(call: Call, headers: &HeaderMap) -> Result<BodyKind, ApiError> {
    let (wanted, kind) = match (call, body::kind(headers)?) {
        (Call::Generations, kind @ BodyKind::Form(_)) => ("application/json", kind),
        (Call::Edits | Call::Variations, kind @ BodyKind::Json) => ("multipart/form-data", kind),
        (_, kind) => return Ok(kind),
    };
    let given = match kind {
        BodyKind::Json => "application/json",
        BodyKind::Form(_) => "multipart/form-data",
    };
    Err(ApiError::new(ErrorCode::UnsupportedMediaType, format!("Content-Type is {given}: send {wanted}")))
}

/// Reads a body. Not to be called on a thread of the runtime: it may take a while.
pub(crate) fn read(body: Bytes, kind: BodyKind, max_part_bytes: usize) -> Result<Form, ApiError> {
    let BodyKind::Form(boundary) = kind else {
        return match body::parse_json(&body)? {
            Value::Object(fields) => Ok(Form { fields, ..Form::default() }),
            _ => Err(ApiError::invalid(vec![FieldError::new("body", "must be a JSON object")])),
        };
    };
    let mut form = Form::default();
    let mut faults = Vec::new();
    for part in Handle::current().block_on(multipart::parts(body, boundary, max_part_bytes))? {
        match part.name.as_str() {
            "image" | "image[]" => form.images.push(part.bytes),
            "mask" => form.mask = Some(part.bytes),
            _ => faults.extend(form.add(&part).err()),
        }
    }
    match faults.is_empty() {
        true => Ok(form),
        false => Err(ApiError::invalid(faults)),
    }
}

impl Form {
    /// What tells this request apart from others under the same key.
    pub(crate) fn fingerprint(&self, call: Call) -> [u8; 32] {
        let images = self.images.iter().map(|image| ("image", &image[..]));
        let files: Vec<_> = images.chain(self.mask.iter().map(|mask| ("mask", &mask[..]))).collect();
        idempotency::fingerprint(call.name(), &self.fields, &ABOUT_THE_ANSWER, &files)
    }

    /// A field of text; `name[key]` is the field `key` of the object `name`, as clients write objects in forms.
    fn add(&mut self, part: &Part) -> Result<(), FieldError> {
        let text =
            std::str::from_utf8(&part.bytes).map_err(|_| FieldError::new(&*part.name, "is not UTF-8"))?;
        let nested = part.name.split_once('[').and_then(|(name, key)| Some((name, key.strip_suffix(']')?)));
        match nested.filter(|(name, key)| !name.is_empty() && !key.is_empty() && !key.contains('[')) {
            Some((name, key)) => {
                let object = self.fields.entry(name).or_insert_with(|| Value::Object(Map::new()));
                let Some(object) = object.as_object_mut() else {
                    return Err(FieldError::new(
                        &*part.name,
                        "is a part of a field that was sent as a whole",
                    ));
                };
                object.insert(key.to_owned(), value(key, text));
            }
            None => drop(self.fields.insert(part.name.clone(), value(&part.name, text))),
        }
        Ok(())
    }
}

fn value(name: &str, text: &str) -> Value {
    match TEXTS.contains(&name) {
        true => text.into(),
        false => field_of_form(name, text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn part(name: &str, bytes: &'static [u8]) -> Part {
        Part { name: name.into(), is_file: false, bytes: Bytes::from_static(bytes) }
    }

    #[test]
    fn texts_of_a_form_become_what_they_mean() {
        let mut form = Form::default();
        for (name, text) in [
            ("prompt", "1984"),
            ("n", "2"),
            ("size", "64x64"),
            ("stream", "true"),
            ("strength", "0.5"),
            ("quality", "high"),
            ("preview[every]", "3"),
            ("preview[method]", "vae"),
            ("loras", r#"[{"name": "ink"}]"#),
        ] {
            form.add(&part(name, text.as_bytes())).unwrap();
        }
        assert_eq!(
            Value::Object(form.fields.clone()),
            json!({"prompt": "1984", "n": 2, "size": "64x64", "stream": true, "strength": 0.5, "quality": "high",
                   "preview": {"every": 3, "method": "vae"}, "loras": [{"name": "ink"}]})
        );
        let clash = form.add(&part("n[x]", b"1")).unwrap_err();
        assert_eq!(clash.field, "n[x]");
        assert!(form.add(&part("user", b"\xff")).is_err());
    }
}
