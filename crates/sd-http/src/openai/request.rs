//! A request to OpenAI's images, in the words of the contract.

use std::ops::RangeInclusive;

use operations_contract::{
    FieldError, ImageData, ModelCapabilities, Operation, ParsedOperation, PreviewMethod,
};
use serde_json::{Value, json};

use super::Call;
use super::fields::Fields;
use super::form::Form;
use crate::submission;

/// Values of `quality`, which is a hint.
pub(crate) const QUALITIES: [&str; 8] = ["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"];
/// The other hints.
pub(crate) const HINTS: [(&str, &[&str]); 4] = [
    ("moderation", &["auto", "low"]),
    ("style", &["vivid", "natural"]),
    ("complexity", &["low", "medium", "high"]),
    ("input_fidelity", &["low", "high"]),
];
pub(crate) const RESPONSE_FORMATS: [&str; 2] = ["b64_json", "url"];
pub(crate) const BACKGROUNDS: [&str; 2] = ["auto", "opaque"];
pub(crate) const FORMATS: [&str; 3] = ["png", "jpeg", "webp"];
pub(crate) const COMPRESSION: RangeInclusive<u64> = 0..=100;
/// How many partial pictures a stream may have.
pub(crate) const PARTIAL_IMAGES: RangeInclusive<u64> = 0..=3;
/// Partial pictures are no larger than this, in pixels.
const PARTIAL_SIDE: u32 = 512;
/// What variations are drawn to when nobody says it: something that is true of every picture, without guidance.
const ANY_PICTURE: &str = "a picture";
/// How much of a picture its variations redraw when nobody says it.
const VARIATION_STRENGTH: f64 = 0.6;

/// How the answer is to look.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) call: Call,
    /// Addresses instead of base64.
    pub(crate) urls: bool,
    pub(crate) stream: bool,
    /// Partial pictures at most.
    pub(crate) partial_images: u64,
    pub(crate) quality: String,
    /// `safety_identifier`, or `user` where that is empty: echoed.
    pub(crate) identifier: Option<String>,
}

/// The operation, whatever is wrong with it included, and how it is to be answered.
pub(crate) fn translate(
    call: Call,
    form: Form,
    model: Option<&ModelCapabilities>,
) -> (ParsedOperation, Asked) {
    let mut fields = Fields::new(form.fields);
    let asked = asked(call, &mut fields);
    what_cannot_be(&mut fields);
    if let Some(count) = fields.take("n") {
        fields.put("num_images", "n", count);
    }
    size(&mut fields);
    format(&mut fields);
    prompt(&mut fields);
    let kind = match call {
        Call::Generations => "image_generation",
        Call::Edits => edit(&mut fields, &form.images, form.mask.as_deref()),
        Call::Variations => variation(&mut fields, &form.images, form.mask.as_deref()),
    };
    fields.put("operation", "operation", kind);
    if asked.stream && asked.partial_images > 0 {
        previews(&mut fields, asked.partial_images, model);
    }
    let (operation, faults) = fields.into_operation();
    let mut parsed = Operation::parse(&operation);
    submission::tell_first(faults, &mut parsed, their_name);
    (parsed, asked)
}

/// The name by which OpenAI's clients know a field of the contract.
pub(crate) fn their_name(ours: &str) -> Option<String> {
    let theirs = match ours {
        "num_images" => "n",
        "width" | "height" => "size",
        "output.format" => "output_format",
        "output.quality" => "output_compression",
        "init_image" => "image",
        "mask_image" => "mask",
        _ => return None,
    };
    Some(theirs.to_owned())
}

/// What is about the answer, not about the picture, and the hints.
fn asked(call: Call, fields: &mut Fields) -> Asked {
    let quality = fields.word("quality", &QUALITIES).unwrap_or_else(|| "auto".into());
    for (hint, words) in HINTS {
        fields.word(hint, words);
    }
    let (user, identifier) = (fields.text("user"), fields.text("safety_identifier"));
    let filled = |text: &String| !text.is_empty();
    let asked = Asked {
        call,
        urls: fields.word("response_format", &RESPONSE_FORMATS).is_some_and(|form| form == "url"),
        stream: fields.flag("stream"),
        partial_images: fields.whole("partial_images", PARTIAL_IMAGES).unwrap_or_default(),
        quality,
        identifier: identifier.filter(filled).or(user.filter(filled)),
    };
    if asked.urls && asked.stream {
        let fault = FieldError::new("response_format", "must be b64_json for a stream");
        fields.fault(fault.with_value("url").with_limit("b64_json"));
    }
    asked
}

/// What would be another picture than this worker draws.
fn what_cannot_be(fields: &mut Fields) {
    let background = fields.take("background");
    let known = |value: &Value| value.as_str().is_some_and(|word| BACKGROUNDS.contains(&word));
    if let Some(other) = background.filter(|value| !known(value)) {
        let fault = FieldError::new("background", "must be auto or opaque: pictures have no transparency");
        fields.fault(fault.with_value(other).with_limit("auto, opaque"));
    }
    for name in ["frame_count", "frame_duration_ms"] {
        fields.refuse(name, "is about GIF, which this worker does not write");
    }
    fields.refuse("svg", "is about SVG, which this worker does not write");
    fields.refuse("operation", "follows from the address");
    fields.refuse("markup", "is not supported: send a mask");
}

/// `WIDTHxHEIGHT`, or `auto`: as the model has it, or the picture that is edited.
fn size(fields: &mut Fields) {
    let Some(size) = fields.take("size") else { return };
    if size == "auto" {
        return;
    }
    let sides = size.as_str().and_then(|text| text.split_once('x'));
    match sides.and_then(|(width, height)| Some((side(width)?, side(height)?))) {
        Some((width, height)) => {
            fields.put("width", "size", width);
            fields.put("height", "size", height);
        }
        None => {
            let fault = FieldError::new("size", "must be `auto` or WIDTHxHEIGHT, as `512x512`");
            fields.fault(fault.with_value(size));
        }
    }
}

/// OpenAI draws nothing without a prompt. What this worker draws then is there by its own address.
fn prompt(fields: &mut Fields) {
    let prompt = fields.ours("prompt").and_then(Value::as_str).map(str::to_owned);
    if let Some(blank) = prompt.filter(|prompt| prompt.trim().is_empty()) {
        fields.fault(FieldError::new("prompt", "is empty").with_value(blank));
    }
}

/// Digits and nothing else; one that no number can hold is outside all bounds.
fn side(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// `output_format`, and `output_compression`, which is a quality: 100 is the best and the default.
fn format(fields: &mut Fields) {
    let format = fields.word("output_format", &FORMATS);
    let compression = fields.whole("output_compression", COMPRESSION);
    match (format.as_deref(), compression) {
        (Some("jpeg"), quality) => {
            fields.put_in("output", "quality", "output_compression", quality.unwrap_or(100).max(1));
        }
        // Without loss is what 100 asks for.
        (Some("webp"), None | Some(100)) | (_, None) => {}
        (_, Some(given)) => {
            let message = "is possible with output_format jpeg only: PNG and WebP are written without loss";
            fields.fault(FieldError::new("output_compression", message).with_value(given));
        }
    }
    if let Some(format) = format {
        fields.put_in("output", "format", "output_format", format);
    }
}

/// An edit repaints what is transparent in the mask, or in the picture itself; where nothing is, all of it.
fn edit(fields: &mut Fields, images: &[bytes::Bytes], mask: Option<&[u8]>) -> &'static str {
    let Some(image) = one_image(fields, images) else { return "image_transform" };
    let mask = match mask {
        Some(mask) => match sd_engine::transparent_mask(mask) {
            Ok(Some(mask)) => Some(mask),
            Ok(None) => {
                let message = "has no pixel that is fully transparent: it marks nothing to edit";
                fields.fault(FieldError::new("mask", message));
                return "image_inpaint";
            }
            Err(message) => {
                fields.fault(FieldError::new("mask", message));
                return "image_inpaint";
            }
        },
        // A picture that cannot be read is refused when its job is made.
        None => sd_engine::transparent_mask(image).ok().flatten(),
    };
    match mask {
        Some(mask) => {
            fields.put("mask_image", "mask", ImageData::new(mask).to_base64());
            "image_inpaint"
        }
        None => "image_transform",
    }
}

fn variation(fields: &mut Fields, images: &[bytes::Bytes], mask: Option<&[u8]>) -> &'static str {
    if mask.is_some() {
        fields.fault(FieldError::new("mask", "is for edits"));
    }
    one_image(fields, images);
    if fields.ours("strength").is_none() {
        fields.put("strength", "strength", VARIATION_STRENGTH);
    }
    if fields.ours("prompt").is_none() {
        fields.put("prompt", "prompt", ANY_PICTURE);
        if fields.ours("guidance_scale").is_none() {
            fields.put("guidance_scale", "guidance_scale", 1.0);
        }
    }
    "image_transform"
}

fn one_image<'a>(fields: &mut Fields, images: &'a [bytes::Bytes]) -> Option<&'a [u8]> {
    match images {
        [] => None,
        [image] => {
            fields.put("init_image", "image", ImageData::new(&image[..]).to_base64());
            Some(image)
        }
        more => {
            let message = format!("is there {} times: this worker works on one picture", more.len());
            fields.fault(FieldError::new("image", message).with_limit(1));
            fields.put("init_image", "image", ImageData::new(&more[0][..]).to_base64());
            None
        }
    }
}

/// Spreads the partial pictures over the run, the cheapest that look like something.
fn previews(fields: &mut Fields, count: u64, model: Option<&ModelCapabilities>) {
    if fields.ours("preview").is_some() {
        return;
    }
    let Some(model) = model else { return };
    let methods = [PreviewMethod::Taesd, PreviewMethod::LatentRgb, PreviewMethod::Vae];
    let Some(method) = methods.iter().find(|method| model.previews.contains(method)) else { return };
    let steps = fields.ours("steps").and_then(Value::as_u64).unwrap_or(model.default_steps.into());
    let drawn = match fields.ours("init_image") {
        Some(_) => fields.ours("strength").and_then(Value::as_f64).unwrap_or(0.8).clamp(0.0, 1.0),
        None => 1.0,
    };
    let steps = (steps as f64 * drawn) as u64;
    // Rounded down, so that there are as many as were asked for; more are not told.
    let every = (steps / (count + 1)).clamp(1, 150);
    fields.put(
        "preview",
        "partial_images",
        json!({"every": every, "method": method, "max_side": PARTIAL_SIDE}),
    );
}

#[cfg(test)]
mod tests;
