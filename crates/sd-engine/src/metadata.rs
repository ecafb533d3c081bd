//! What a file tells about itself: the line that other front ends read, and the request that makes it again.

pub(crate) mod exif;
mod parameters;
mod read;

use operations_contract::{Common, Operation, Sampler, Schedule, Tiling};

use crate::prompts::{self, Resolved};
use crate::running::Described;

pub use parameters::{Parameters, Reconstructed};
pub use read::{FileTexts, read_texts};

/// The text that A1111 and its kin read: the keyword of a PNG's chunk.
pub const PARAMETERS_KEY: &str = "parameters";
/// The request as JSON: the keyword of a PNG's chunk.
pub const JSON_KEY: &str = "sd-worker";

/// What of a request changes no pixel: it is the client's business and no part of the picture.
const NOT_OF_THE_PICTURE: [&str; 6] =
    ["preview", "priority", "deadline_ms", "cancel_on_disconnect", "hive_id", "worker_id"];

/// The texts of one image. `seed` is the image's own; `circumstances` tell what else the picture depends on.
pub(crate) fn texts(
    described: &Described,
    seed: u64,
    circumstances: &[(&'static str, String)],
) -> Vec<(&'static str, String)> {
    let Described { operation, parameters, told } = described;
    let Some(common) = operation.common() else {
        return enlarged(told.as_deref(), parameters, circumstances);
    };
    let resolved = prompts::resolved(common, seed);
    vec![
        (PARAMETERS_KEY, parameters_line(operation, common, &resolved, seed, circumstances)),
        (JSON_KEY, request(parameters, &resolved, seed).to_string()),
    ]
}

/// The texts of a picture that was enlarged: what its file `told` of its making, with what was done since, and the request.
fn enlarged(
    told: Option<&str>,
    parameters: &serde_json::Value,
    circumstances: &[(&'static str, String)],
) -> Vec<(&'static str, String)> {
    let mut request = parameters.clone();
    leave_out_what_changes_no_pixel(&mut request);
    let continued = told.map(|told| {
        let add = |text: String, (key, value): &(&str, String)| format!("{text}, {key}: {value}");
        (PARAMETERS_KEY, circumstances.iter().fold(told.to_owned(), add))
    });
    continued.into_iter().chain([(JSON_KEY, request.to_string())]).collect()
}

/// Image k of a batch is the image that its own seed gives alone: that request is told, with its wildcards chosen.
fn request(parameters: &serde_json::Value, resolved: &Resolved, seed: u64) -> serde_json::Value {
    let mut request = parameters.clone();
    request["seed"] = seed.into();
    request["num_images"] = 1.into();
    for (field, text) in resolved.fields() {
        request[field] = text.into();
    }
    leave_out_what_changes_no_pixel(&mut request);
    request
}

fn leave_out_what_changes_no_pixel(request: &mut serde_json::Value) {
    if let Some(fields) = request.as_object_mut() {
        fields.retain(|field, _| !NOT_OF_THE_PICTURE.contains(&field.as_str()));
    }
}

fn parameters_line(
    operation: &Operation,
    common: &Common,
    resolved: &Resolved,
    seed: u64,
    circumstances: &[(&'static str, String)],
) -> String {
    let mut text = resolved.prompt.clone();
    if !resolved.negative_prompt.is_empty() {
        text += &format!("\nNegative prompt: {}", resolved.negative_prompt);
    }
    let mut pairs = Vec::new();
    let mut pair = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            pairs.push(format!("{key}: {value}"));
        }
    };
    pair("Steps", common.steps.map(|steps| steps.to_string()));
    pair("Sampler", common.sampler.map(|sampler| sampler_label(sampler).to_owned()));
    pair("Schedule type", common.schedule.map(|schedule| schedule_label(schedule).to_owned()));
    pair("CFG scale", common.guidance_scale.map(|scale| scale.to_string()));
    pair("CFG rescale", common.guidance_rescale.map(|rescale| rescale.to_string()));
    let interval = common.guidance_interval.map(|interval| format!("{}-{}", interval.start, interval.end));
    pair("CFG interval", interval);
    pair("Timestep spacing", common.timestep_spacing.map(|spacing| spacing.to_string()));
    pair("Eta", common.eta.map(|eta| eta.to_string()));
    pair("Seed", Some(seed.to_string()));
    pair("Size", common.width.zip(common.height).map(|(width, height)| format!("{width}x{height}")));
    pair("Model", common.model.clone());
    pair("Denoising strength", strength(operation).map(|strength| strength.to_string()));
    pair("Clip skip", Some(common.clip_skip).filter(|skip| *skip > 0).map(|skip| (skip + 1).to_string()));
    pair("Refiner switch at", common.refiner.map(|refiner| refiner.start.to_string()));
    pair("Tiling", tiling_label(common.tiling).map(str::to_owned));
    for (key, value) in circumstances {
        pair(key, Some(value.clone()));
    }
    pair("Version", Some(concat!("sd-worker ", env!("CARGO_PKG_VERSION")).to_owned()));
    text + "\n" + &pairs.join(", ")
}

/// Other front ends know both directions or none.
fn tiling_label(tiling: Tiling) -> Option<&'static str> {
    match tiling {
        Tiling { x: true, y: true } => Some("True"),
        Tiling { x: true, y: false } => Some("x"),
        Tiling { x: false, y: true } => Some("y"),
        Tiling { x: false, y: false } => None,
    }
}

fn strength(operation: &Operation) -> Option<f64> {
    match operation {
        Operation::ImageGeneration(_) | Operation::ImageUpscale(_) => None,
        Operation::ImageTransform(request) => Some(request.strength),
        Operation::ImageInpaint(request) => Some(request.strength),
    }
}

/// The names that front ends show, and recognise when they read a file back.
fn sampler_label(sampler: Sampler) -> &'static str {
    match sampler {
        Sampler::Ddim => "DDIM",
        Sampler::Ddpm => "DDPM",
        Sampler::Pndm => "PLMS",
        Sampler::Euler => "Euler",
        Sampler::EulerA => "Euler a",
        Sampler::Heun => "Heun",
        Sampler::Dpm2 => "DPM2",
        Sampler::Dpm2A => "DPM2 a",
        Sampler::Lms => "LMS",
        Sampler::Dpmpp2m => "DPM++ 2M",
        Sampler::Dpmpp2mSde => "DPM++ 2M SDE",
        Sampler::DpmppSde => "DPM++ SDE",
        Sampler::Dpmpp2sA => "DPM++ 2S a",
        Sampler::Dpmpp3mSde => "DPM++ 3M SDE",
        Sampler::Unipc => "UniPC",
        Sampler::Deis => "DEIS",
        Sampler::Lcm => "LCM",
        Sampler::Tcd => "TCD",
        // Front ends have no labels of their own for the flow samplers.
        other => other.as_str(),
    }
}

fn schedule_label(schedule: Schedule) -> &'static str {
    match schedule {
        Schedule::Normal => "Automatic",
        Schedule::Karras => "Karras",
        Schedule::Exponential => "Exponential",
        Schedule::Beta => "Beta",
        Schedule::SgmUniform => "SGM Uniform",
        Schedule::Simple => "Simple",
        Schedule::DdimUniform => "DDIM",
        Schedule::AlignYourSteps => "Align Your Steps",
        other => other.as_str(),
    }
}
