//! The ranges of a typed operation, wherever it was made.

use std::ops::RangeInclusive;

use crate::bounds;
use crate::error::FieldError;
use crate::fields::Faults;
use crate::image_data::ImageData;
use crate::operation::{JobFields, Operation};
use crate::request::{Common, Control, Extend, GuidanceInterval, ImageInpaint, Lora};
use crate::upscale;

pub(crate) fn operation(operation: &Operation, faults: &mut Faults) {
    if let Some(drawing) = operation.common() {
        common(drawing, faults);
    }
    job(&operation.job(), faults);
    match operation {
        Operation::ImageGeneration(_) => {}
        Operation::ImageUpscale(request) => upscale::check(request, faults),
        Operation::ImageTransform(request) => {
            image("init_image", &request.init_image, faults);
            faults.number("strength", request.strength, bounds::STRENGTH);
        }
        Operation::ImageInpaint(request) => {
            image("init_image", &request.init_image, faults);
            mask(request, faults);
            faults.number("strength", request.strength, bounds::STRENGTH);
            faults.whole("mask_blur", request.mask_blur.into(), bounds::MASK_BLUR);
            if let Some(padding) = request.padding_mask_crop {
                faults.whole("padding_mask_crop", padding.into(), bounds::PADDING_MASK_CROP);
            }
        }
    }
}

fn common(common: &Common, faults: &mut Faults) {
    faults.text("prompt", &common.prompt, bounds::MAX_PROMPT_CHARS);
    faults.text("negative_prompt", &common.negative_prompt, bounds::MAX_PROMPT_CHARS);
    for (field, text) in [("prompt_2", &common.prompt_2), ("negative_prompt_2", &common.negative_prompt_2)] {
        if let Some(text) = text {
            faults.text(field, text, bounds::MAX_PROMPT_CHARS);
        }
    }
    let optional = [
        ("width", common.width, bounds::SIDE),
        ("height", common.height, bounds::SIDE),
        ("steps", common.steps, bounds::STEPS),
    ];
    for (field, value, range) in optional {
        if let Some(value) = value {
            faults.whole(field, value.into(), range);
        }
    }
    if let Some(scale) = common.guidance_scale {
        faults.number("guidance_scale", scale, bounds::GUIDANCE_SCALE);
    }
    if let Some(rescale) = common.guidance_rescale {
        faults.number("guidance_rescale", rescale, bounds::GUIDANCE_RESCALE);
    }
    if let Some(GuidanceInterval { start, end }) = common.guidance_interval {
        span("guidance_interval", start, end, bounds::GUIDANCE_SPAN, faults);
    }
    if let Some(eta) = common.eta {
        faults.number("eta", eta, bounds::ETA);
    }
    faults.whole("num_images", common.num_images.into(), bounds::NUM_IMAGES);
    faults.whole("clip_skip", common.clip_skip.into(), bounds::CLIP_SKIP);
    count("loras", common.loras.len(), bounds::MAX_LORAS, faults);
    for (index, entry) in common.loras.iter().enumerate() {
        lora(&format!("loras[{index}]"), entry, faults);
    }
    count("control", common.control.len(), bounds::MAX_CONTROLS, faults);
    for (index, entry) in common.control.iter().enumerate() {
        control(&format!("control[{index}]"), entry, faults);
    }
    if let Some(hires) = common.hires {
        faults.number("hires.scale", hires.scale, bounds::HIRES_SCALE);
        faults.number("hires.strength", hires.strength, bounds::STRENGTH);
        if let Some(steps) = hires.steps {
            faults.whole("hires.steps", steps.into(), bounds::STEPS);
        }
    }
    if let Some(refiner) = common.refiner {
        faults.number("refiner.start", refiner.start, bounds::REFINER_START);
    }
    if common.guess_mode && common.control.is_empty() {
        faults.push(
            FieldError::new("guess_mode", "is about control images, and there is none").with_value(true),
        );
    }
    if let Some(preview) = common.preview {
        faults.whole("preview.every", preview.every.into(), bounds::PREVIEW_EVERY);
        faults.whole("preview.max_side", preview.max_side.into(), bounds::PREVIEW_MAX_SIDE);
    }
}

/// What every operation has.
fn job(job: &JobFields<'_>, faults: &mut Faults) {
    for (field, value) in [("model", job.model), ("hive_id", job.hive_id), ("worker_id", job.worker_id)] {
        if let Some(value) = value {
            name(field, value, faults);
        }
    }
    faults.whole("output.quality", job.output.quality.into(), bounds::QUALITY);
    if let Some(deadline) = job.deadline_ms {
        faults.whole("deadline_ms", deadline, bounds::DEADLINE_MS);
    }
}

/// One mask at least, and no two that contradict each other.
fn mask(request: &ImageInpaint, faults: &mut Faults) {
    match (request.mask_image.is_empty(), request.mask_from_alpha) {
        (true, false) if request.extend.is_none() => {
            let message = "is missing: send it, or mask_from_alpha or extend in its place";
            faults.push(FieldError::new("mask_image", message));
        }
        (false, true) => {
            let message = "takes the place of mask_image: send one of them";
            faults.push(FieldError::new("mask_from_alpha", message).with_value(true));
        }
        _ => {}
    }
    if let Some(sides) = &request.extend {
        extend(sides, faults);
    }
}

fn extend(extend: &Extend, faults: &mut Faults) {
    let Extend { left, top, right, bottom, overlap } = *extend;
    let sides = [("left", left), ("top", top), ("right", right), ("bottom", bottom)];
    for (side, pixels) in sides {
        faults.whole(&format!("extend.{side}"), pixels.into(), bounds::EXTEND);
    }
    faults.whole("extend.overlap", overlap.into(), bounds::EXTEND_OVERLAP);
    if sides.iter().all(|(_, pixels)| *pixels == 0) {
        faults.push(FieldError::new(
            "extend",
            "extends no side: one of left, top, right and bottom must be above 0",
        ));
    }
}

fn lora(path: &str, lora: &Lora, faults: &mut Faults) {
    name(&format!("{path}.name"), &lora.name, faults);
    faults.number(&format!("{path}.scale"), lora.scale, bounds::LORA_SCALE);
}

fn control(path: &str, control: &Control, faults: &mut Faults) {
    name(&format!("{path}.kind"), &control.kind, faults);
    image(&format!("{path}.image"), &control.image, faults);
    faults.number(&format!("{path}.strength"), control.strength, bounds::CONTROL_STRENGTH);
    span(path, control.start, control.end, bounds::CONTROL_SPAN, faults);
}

/// A part of the run: `end` comes after `start`.
fn span(path: &str, start: f64, end: f64, range: RangeInclusive<f64>, faults: &mut Faults) {
    faults.number(&format!("{path}.start"), start, range.clone());
    faults.number(&format!("{path}.end"), end, range);
    if start >= end {
        let message = format!("{end} is not after start, {start}");
        faults.push(FieldError::new(format!("{path}.end"), message).with_value(end));
    }
}

fn filled(field: &str, value: &str, faults: &mut Faults) {
    if value.trim().is_empty() {
        faults.push(FieldError::new(field, "is empty").with_value(value));
    }
}

fn name(field: &str, value: &str, faults: &mut Faults) {
    filled(field, value, faults);
    faults.text(field, value, bounds::MAX_NAME_CHARS);
}

pub(crate) fn image(field: &str, image: &ImageData, faults: &mut Faults) {
    if image.is_empty() {
        faults.push(FieldError::new(field, "is empty"));
    }
}

fn count(field: &str, count: usize, max: usize, faults: &mut Faults) {
    if count > max {
        let message = format!("has {count} entries; at most {max} are allowed");
        faults.push(FieldError::new(field, message).with_limit(max));
    }
}
