//! `enable_hr`: the second pass over a larger picture.

use operations_contract::Upscaler;
use serde_json::{Value, json};

use super::payload::{Payload, says_nothing};

/// The web UI's names of what a second pass can enlarge with.
pub(crate) fn upscaler(name: &str) -> Option<Upscaler> {
    match name {
        "Latent" => Some(Upscaler::Latent),
        "Lanczos" => Some(Upscaler::Lanczos),
        // Its own name is not known here.
        "Network" => Some(Upscaler::Network),
        _ => None,
    }
}

/// Its name for the web UI's clients.
pub(crate) fn upscaler_name(upscaler: Upscaler) -> &'static str {
    match upscaler {
        Upscaler::Latent => "Latent",
        Upscaler::Lanczos => "Lanczos",
        Upscaler::Network => "Network",
        other => other.as_str(),
    }
}

pub(crate) const FIELDS: [&str; 12] = [
    "hr_scale",
    "hr_upscaler",
    "hr_second_pass_steps",
    "hr_resize_x",
    "hr_resize_y",
    "hr_checkpoint_name",
    "hr_sampler_name",
    "hr_scheduler",
    "hr_prompt",
    "hr_negative_prompt",
    "firstphase_width",
    "firstphase_height",
];

pub(crate) fn translate(payload: &mut Payload<'_>) {
    if payload.flag("enable_hr") != Some(true) {
        // Without a second pass they mean nothing, nor does the strength of one.
        for name in FIELDS.iter().chain(&["denoising_strength"]) {
            payload.take(name);
        }
        return;
    }
    let mut hires = json!({"strength": 0.7});
    if let Some(strength) = payload.number("denoising_strength") {
        hires["strength"] = strength.into();
    }
    if let Some(scale) = scale(payload) {
        hires["scale"] = scale.into();
    }
    if let Some(steps) = payload.whole("hr_second_pass_steps").filter(|steps| *steps != 0) {
        hires["steps"] = steps.into();
    }
    if let Some(name) = payload.take("hr_upscaler") {
        match name.as_str().and_then(upscaler) {
            Some(upscaler) => hires["upscaler"] = upscaler.as_str().into(),
            None => payload.refuse("hr_upscaler", name, "is none of Latent, Lanczos, Network"),
        }
    }
    payload.put("hires", hires);
    let same = |what: &'static str| move |value: &Value| says_nothing(value) || value == what;
    let why = "must be the first pass's";
    payload.only("hr_checkpoint_name", same("Use same checkpoint"), why);
    payload.only("hr_sampler_name", same("Use same sampler"), why);
    payload.only("hr_scheduler", same("Use same scheduler"), why);
    payload.only("hr_prompt", says_nothing, why);
    payload.only("hr_negative_prompt", says_nothing, why);
    let absent = |value: &Value| value.as_f64() == Some(0.0);
    payload.only("firstphase_width", absent, "is possible as 0 only: send width and hr_scale");
    payload.only("firstphase_height", absent, "is possible as 0 only: send height and hr_scale");
}

/// `hr_scale`, or what follows from `hr_resize_x` and `hr_resize_y`.
fn scale(payload: &mut Payload<'_>) -> Option<f64> {
    let scale = payload.number("hr_scale");
    let mut side = |wanted: &'static str, first: &'static str| {
        let wanted = payload.number(wanted).filter(|side| *side != 0.0)?;
        Some((wanted, payload.number(first)))
    };
    let sides = [side("hr_resize_x", "width"), side("hr_resize_y", "height")];
    let mut scales = sides.into_iter().flatten().map(|(wanted, first)| first.map(|first| wanted / first));
    let Some(first) = scales.next() else { return scale };
    let second = scales.next();
    match (first, second) {
        (Some(first), None) => Some(first),
        (Some(first), Some(Some(second))) if (first - second).abs() < 1e-9 => Some(first),
        _ => {
            let given = payload.take("hr_resize_x").cloned().unwrap_or_default();
            let message = "must keep the ratio of width and height, which are to be sent with it";
            payload.refuse("hr_resize_x", &given, message);
            None
        }
    }
}
