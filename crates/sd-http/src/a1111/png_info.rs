//! `POST /sdapi/v1/png-info`: what a picture tells about its making.

use http::{Response, StatusCode};
use operations_contract::{FieldError, ImageData};
use sd_engine::{JSON_KEY, Parameters};
use serde_json::{Map, Value};

use super::views::PngInfo;
use crate::body::{self, ResponseBody};
use crate::error::ApiError;

pub(crate) fn handle(fields: &Map<String, Value>) -> Result<Response<ResponseBody>, ApiError> {
    let broken = |message: String| ApiError::invalid(vec![FieldError::new("image", message)]);
    let text = fields.get("image").and_then(Value::as_str).ok_or_else(|| broken("is missing".into()))?;
    let image = ImageData::from_text(text).map_err(|error| broken(error.to_string()))?;
    let texts = sd_engine::read_texts(image.bytes()).map_err(broken)?;
    let mut items = Map::new();
    if let Some(json) = texts.json {
        items.insert(JSON_KEY.to_owned(), json.into());
    }
    let info = texts.parameters.unwrap_or_default();
    let told = PngInfo { parameters: parameters(&info), info, items };
    Ok(body::json(StatusCode::OK, &told))
}

/// The text taken apart, with the web UI's names: a size as two numbers, and its defaults for two settings that it leaves
/// out.
fn parameters(info: &str) -> Map<String, Value> {
    let mut told = Map::new();
    if info.is_empty() {
        return told;
    }
    let parsed = Parameters::parse(info);
    told.insert("Prompt".into(), parsed.prompt.into());
    told.insert("Negative prompt".into(), parsed.negative_prompt.into());
    for (name, value) in parsed.settings {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match value.split_once('x').filter(|(width, height)| digits(width) && digits(height)) {
            Some((width, height)) => {
                told.insert(format!("{name}-1"), width.into());
                told.insert(format!("{name}-2"), height.into());
            }
            None => drop(told.insert(name, value.into())),
        }
    }
    for (name, default) in [("Clip skip", "1"), ("Schedule type", "Automatic")] {
        told.entry(name).or_insert_with(|| default.into());
    }
    told
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_is_taken_apart_as_the_web_ui_does_it() {
        let info = "a cat\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7.0, Seed: 5, Size: 512x768";
        assert_eq!(
            Value::Object(parameters(info)),
            json!({"Prompt": "a cat", "Negative prompt": "blurry", "Steps": "20", "Sampler": "Euler a", "CFG scale": "7.0",
                   "Seed": "5", "Size-1": "512", "Size-2": "768", "Clip skip": "1", "Schedule type": "Automatic"})
        );
        assert!(parameters("").is_empty());
    }
}
