//! `multipart/form-data`: pictures as files beside the fields, without base64.

use std::convert::Infallible;

use async_stream::stream;
use bytes::Bytes;
use multer::{Constraints, Multipart, SizeLimit};
use operations_contract::{ErrorCode, FieldError, ImageData, field_of_form};
use serde_json::{Map, Value};

use crate::error::ApiError;

/// More parts than an operation has fields.
const MAX_PARTS: usize = 128;

/// The fields that may come as files.
pub(crate) const PICTURES: [&str; 4] = ["init_image", "input_image", "mask_image", "image"];

/// One part of a form.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) name: String,
    /// Whether it was sent as a file: with a file name, or declared as a picture.
    pub(crate) is_file: bool,
    pub(crate) bytes: Bytes,
}

/// The boundary of a form, from its `Content-Type`; `None`: it is no form.
pub(crate) fn boundary(content_type: &str) -> Option<String> {
    multer::parse_boundary(content_type).ok()
}

/// Takes a form apart. No part may have more than `max_part_bytes`.
///
/// All of the form is there already, so that this never waits.
pub(crate) async fn parts(
    form: Bytes,
    boundary: String,
    max_part_bytes: usize,
) -> Result<Vec<Part>, ApiError> {
    let limits = SizeLimit::new().per_field(max_part_bytes as u64);
    let constraints = Constraints::new().size_limit(limits);
    let whole = stream! { yield Ok::<_, Infallible>(form) };
    let mut form = Multipart::with_constraints(whole, boundary, constraints);
    let mut parts = Vec::new();
    while let Some(field) = form.next_field().await.map_err(broken)? {
        if parts.len() == MAX_PARTS {
            return Err(fault("body", format!("has more than {MAX_PARTS} parts")));
        }
        let Some(name) = field.name().map(str::to_owned) else {
            return Err(fault("body", format!("part {} has no name", field.index() + 1)));
        };
        let picture = field.content_type().is_some_and(|kind| kind.type_() == "image");
        let file_name = field.file_name().map(str::to_owned);
        let bytes = field.bytes().await.map_err(broken)?;
        // What a browser sends for a file input in which nothing was chosen.
        if file_name.as_deref() == Some("") && bytes.is_empty() {
            continue;
        }
        parts.push(Part { name, is_file: picture || file_name.is_some(), bytes });
    }
    Ok(parts)
}

/// The operation that a form describes, as it would stand in a JSON body: a part `request` with that JSON, or single
/// fields, and pictures as files in parts that are named after the fields which they fill.
pub(crate) fn operation(parts: Vec<Part>) -> Result<Value, ApiError> {
    let mut body = Map::new();
    let (files, fields): (Vec<Part>, Vec<Part>) =
        parts.into_iter().partition(|part| part.is_file && part.name != "request");
    let mut faults = Vec::new();
    for part in fields {
        let Ok(text) = std::str::from_utf8(&part.bytes) else {
            faults.push(FieldError::new(shown(&part.name), "is not UTF-8"));
            continue;
        };
        let found: Vec<(String, Value)> = if part.name == "request" {
            match serde_json::from_str(text) {
                Ok(Value::Object(fields)) => fields.into_iter().collect(),
                Ok(_) => return Err(fault("request", "must be a JSON object")),
                Err(error) => return Err(fault("request", format!("is not JSON: {error}"))),
            }
        } else {
            vec![(part.name.clone(), field_of_form(&part.name, text))]
        };
        for (name, value) in found {
            if body.contains_key(&name) {
                faults.push(FieldError::new(shown(&name), "was sent twice"));
            } else {
                body.insert(name, value);
            }
        }
    }
    for part in files {
        if let Err(message) = place(&mut body, &part) {
            faults.push(FieldError::new(shown(&part.name), message));
        }
    }
    match faults.is_empty() {
        true => Ok(Value::Object(body)),
        false => Err(ApiError::invalid(faults)),
    }
}

/// Puts a picture where its part's name says.
fn place(body: &mut Map<String, Value>, part: &Part) -> Result<(), &'static str> {
    let (fields, field) = match part.name.as_str() {
        name if PICTURES.contains(&name) => (body, name),
        name => {
            let index = name.strip_prefix("control[").and_then(|rest| rest.strip_suffix("].image"));
            let index: usize = index
                .and_then(|index| index.parse().ok())
                .ok_or("takes no file; init_image, input_image, mask_image, image and control[N].image do")?;
            let entry = body.get_mut("control").and_then(|controls| controls.get_mut(index));
            let entry = entry.and_then(Value::as_object_mut);
            (entry.ok_or("belongs to no entry of `control`, which is sent as JSON")?, "image")
        }
    };
    if fields.contains_key(field) {
        return Err("was sent twice");
    }
    if part.bytes.is_empty() {
        return Err("is empty");
    }
    fields.insert(field.to_owned(), ImageData::new(&part.bytes[..]).to_base64().into());
    Ok(())
}

fn shown(name: &str) -> String {
    name.chars().take(80).collect()
}

fn fault(part: &str, message: impl Into<String>) -> ApiError {
    ApiError::invalid(vec![FieldError::new(part, message)])
}

fn broken(error: multer::Error) -> ApiError {
    match error {
        multer::Error::FieldSizeExceeded { limit, field_name } => {
            let name = shown(field_name.as_deref().unwrap_or("without a name"));
            let message = format!("the part {name} is larger than {limit} bytes");
            ApiError::new(ErrorCode::PayloadTooLarge, message)
        }
        multer::Error::IncompleteFieldData { field_name: Some(name) } => {
            fault(&shown(&name), "is cut: the form ends within it")
        }
        error => fault("body", format!("is no whole form: {error}")),
    }
}
