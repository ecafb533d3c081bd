//! `txt2img` and `img2img` in the words of the contract.

use operations_contract::{
    FieldError, ModelCapabilities, Operation, ParsedOperation, PreviewMethod, Sampler, Schedule,
};
use serde_json::{Map, Value, json};

use super::payload::{Payload, says_nothing};
use super::settings::Settings;
use super::{controlnet, echo, hires, img2img, names, prompt, refiner};
use crate::submission;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Txt2Img,
    Img2Img,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Txt2Img => "txt2img",
            Self::Img2Img => "img2img",
        }
    }
}

/// How the answer is to look.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) kind: Kind,
    /// For `parameters`.
    pub(crate) echo: Map<String, Value>,
    pub(crate) send_images: bool,
    pub(crate) batch_size: i64,
    /// What the request says and nothing was done about; it changes no picture.
    pub(crate) ignored: Vec<String>,
}

/// `denoising_strength` of `img2img` when the request says nothing.
pub(crate) const IMG2IMG_STRENGTH: f64 = 0.75;
/// Previews are no larger than this, in pixels.
const PREVIEW_SIDE: u32 = 512;

/// The operation, whatever is wrong with it included, and how it is to be answered.
pub(crate) fn translate(
    kind: Kind,
    fields: &Map<String, Value>,
    mut settings: Settings,
    model: Option<&ModelCapabilities>,
) -> (ParsedOperation, Asked) {
    let mut payload = Payload::new(fields);
    overrides(&mut payload, &mut settings);
    for (name, value) in settings.fields() {
        payload.put(name, value);
    }
    text(&mut payload);
    seed(&mut payload);
    sampler(&mut payload, &settings, model);
    payload.pass("steps", "steps");
    payload.pass("cfg_scale", "guidance_scale");
    payload.pass("width", "width");
    payload.pass("height", "height");
    let batch_size = batch(&mut payload);
    if payload.flag("tiling") == Some(true) {
        payload.put("tiling", json!({"x": true, "y": true}));
    }
    match kind {
        Kind::Txt2Img => {
            payload.put("operation", "image_generation");
            hires::translate(&mut payload);
        }
        Kind::Img2Img => img2img::translate(&mut payload),
    }
    controlnet::translate(&mut payload);
    refiner::translate(&mut payload, model);
    beyond(&mut payload);
    preview(&mut payload, &settings, model);
    let send_images = payload.flag("send_images").unwrap_or(true);
    let with_init_images = payload.flag("include_init_images").unwrap_or(false);
    let (operation, faults, ignored) = payload.into_parts();
    let mut parsed = Operation::parse(&operation);
    // One prompt has many tags: a fault of one says nothing about the others.
    let other_than_tags = |ours: &str| their_name(ours).filter(|_| !ours.starts_with("loras"));
    submission::tell_first(faults, &mut parsed, other_than_tags);
    let echo = echo::of(kind, fields, with_init_images);
    (parsed, Asked { kind, echo, send_images, batch_size, ignored })
}

/// The name by which the web UI's clients know a field of the contract.
pub(crate) fn their_name(ours: &str) -> Option<String> {
    let theirs = match ours {
        "guidance_scale" => "cfg_scale",
        "num_images" => "batch_size",
        "sampler" => "sampler_name",
        "schedule" => "scheduler",
        "strength" | "hires.strength" => "denoising_strength",
        "init_image" => "init_images[0]",
        "mask_image" => "mask",
        "padding_mask_crop" => "inpaint_full_res_padding",
        "model" => "override_settings.sd_model_checkpoint",
        "clip_skip" => "override_settings.CLIP_stop_at_last_layers",
        "rng" => "override_settings.randn_source",
        "hires" => "enable_hr",
        "hires.scale" => "hr_scale",
        "hires.steps" => "hr_second_pass_steps",
        "hires.upscaler" => "hr_upscaler",
        "refiner" => "refiner_checkpoint",
        "refiner.start" => "refiner_switch_at",
        other if other.starts_with("loras") => "prompt",
        other => return other.strip_prefix("control").map(controlnet::their_name),
    };
    Some(theirs.to_owned())
}

fn overrides(payload: &mut Payload<'_>, settings: &mut Settings) {
    let Some(value) = payload.take("override_settings") else { return };
    let Some(overrides) = value.as_object() else {
        payload.refuse("override_settings", value, "must be an object");
        return;
    };
    let ignored = settings.set_all(overrides, "override_settings.", &mut payload.faults);
    payload.ignored.extend(ignored);
}

fn text(payload: &mut Payload<'_>) {
    // Absent is empty, as in the web UI.
    let tagged = prompt::take_tags(payload.text("prompt").unwrap_or_default());
    payload.put("prompt", tagged.prompt);
    payload.faults.extend(tagged.faults);
    if !tagged.loras.is_empty() {
        payload.put("loras", tagged.loras);
    }
    payload.pass("negative_prompt", "negative_prompt");
}

/// -1, and an empty text, leave the seed open.
fn seed(payload: &mut Payload<'_>) {
    match payload.take("seed") {
        Some(open) if says_nothing(open) || open.as_i64() == Some(-1) => {}
        Some(seed) => payload.put("seed", seed.clone()),
        None => {}
    }
}

/// Sampler, schedule and eta.
fn sampler(payload: &mut Payload<'_>, settings: &Settings, model: Option<&ModelCapabilities>) {
    // The older of two names for the same counts where the newer one is absent.
    let index = payload.take("sampler_index");
    let name = payload.take("sampler_name").filter(|name| !says_nothing(name)).or(index);
    let mut chosen: Option<Sampler> = None;
    let mut schedule: Option<Schedule> = None;
    if let Some(name) = name {
        match name.as_str().and_then(names::sampler) {
            Some((sampler, with)) => {
                chosen = Some(sampler);
                schedule = with;
            }
            None => {
                payload.refuse("sampler_name", name, "is no sampler of this worker: `samplers` lists them")
            }
        }
    }
    if let Some(name) = payload.take("scheduler").filter(|name| !says_nothing(name)) {
        match name.as_str() {
            Some(automatic) if automatic.eq_ignore_ascii_case("automatic") => {}
            known => match known.and_then(names::schedule) {
                Some(known) => schedule = Some(known),
                None => payload.refuse(
                    "scheduler",
                    name,
                    "is no schedule of this worker: `schedulers` lists them",
                ),
            },
        }
    }
    if let Some(sampler) = chosen {
        payload.put("sampler", sampler.as_str());
        payload.put("schedule", schedule.unwrap_or_else(|| names::automatic(sampler)).as_str());
    } else if let Some(schedule) = schedule {
        payload.put("schedule", schedule.as_str());
    }
    eta(payload, settings, chosen.or(model.map(|model| model.default_sampler)));
}

/// The web UI has one number for two things: fresh noise in ancestral samplers, which here is always whole, and in DDIM.
/// With all others it does nothing.
fn eta(payload: &mut Payload<'_>, settings: &Settings, sampler: Option<Sampler>) {
    let given = payload.number("eta");
    match sampler {
        Some(Sampler::Ddim) => {
            if let Some(eta) = given.or(settings.eta_ddim).filter(|eta| *eta != 0.0) {
                payload.put("eta", eta);
            }
        }
        Some(sampler) if sampler.takes_eta() => {
            if let Some(eta) = given.filter(|eta| *eta != 1.0) {
                payload.put("eta", eta);
            }
        }
        Some(Sampler::EulerA | Sampler::Dpm2A | Sampler::DpmppSde | Sampler::Dpmpp2mSde) => {
            if let Some(eta) = given.filter(|eta| *eta != 1.0) {
                payload.refuse("eta", &eta.into(), "is possible as 1 only with this sampler");
            }
        }
        _ => {}
    }
}

/// Pictures in all: one job draws them, each with the next seed, as the web UI does it.
fn batch(payload: &mut Payload<'_>) -> i64 {
    let mut count = |name| {
        let count = payload.whole(name).unwrap_or(1);
        if count < 1 {
            payload.refuse(name, &count.into(), "must be at least 1");
        }
        count.max(1)
    };
    let (size, times) = (count("batch_size"), count("n_iter"));
    payload.put("num_images", size.saturating_mul(times));
    size
}

/// What the web UI can do and this worker cannot, and what changes no picture.
fn beyond(payload: &mut Payload<'_>) {
    let zero = |value: &Value| value.as_f64() == Some(0.0);
    let one = |value: &Value| value.as_f64() == Some(1.0);
    let off = |value: &Value| value == &Value::Bool(false) || zero(value);
    let not_above_zero = |value: &Value| value.as_f64().is_some_and(|number| number <= 0.0);
    payload.only("subseed_strength", zero, "is possible as 0 only: there are no variation seeds");
    payload.only("seed_resize_from_w", not_above_zero, "is possible as 0 only");
    payload.only("seed_resize_from_h", not_above_zero, "is possible as 0 only");
    payload.only("restore_faces", off, "is possible as false only: there is no network for faces");
    payload.only("styles", says_nothing, "is possible as an empty list only: there are no styles");
    payload.only("script_name", says_nothing, "is possible as null only: there are no scripts");
    payload.only("s_churn", zero, "is possible as 0 only");
    payload.only("s_noise", one, "is possible as 1 only");
    payload.only("s_min_uncond", zero, "is possible as 0 only");
    payload.only("infotext", says_nothing, "is possible as null only: send its fields");
    payload.only("disable_extra_networks", off, "is possible as false only");
    payload.only("firstpass_image", says_nothing, "is possible as null only");
    // They count together with what is refused above, or say what a caller's own settings are.
    for name in ["subseed", "s_tmax", "s_tmin", "script_args"] {
        payload.take(name);
    }
    let no = |value: &Value| says_nothing(value) || off(value);
    payload.ignore("save_images", no);
    payload.ignore("force_task_id", says_nothing);
    payload.ignore("comments", says_nothing);
    payload.ignore("do_not_save_samples", |_| true);
    payload.ignore("do_not_save_grid", |_| true);
    payload.ignore("override_settings_restore_afterwards", |value| value != &Value::Bool(false));
}

/// Pictures on the way, for `progress`.
fn preview(payload: &mut Payload<'_>, settings: &Settings, model: Option<&ModelCapabilities>) {
    let Some((every, model)) = settings.preview_every.zip(model) else { return };
    let methods = [PreviewMethod::Taesd, PreviewMethod::LatentRgb];
    let Some(method) = methods.iter().find(|method| model.previews.contains(method)) else { return };
    payload.put("preview", json!({"every": every, "method": method, "max_side": PREVIEW_SIDE}));
}

/// A fault about a field within another.
pub(crate) fn fault(field: impl Into<String>, message: impl Into<String>, value: &Value) -> FieldError {
    FieldError::new(field, message).with_value(value.clone())
}

#[cfg(test)]
mod tests;
