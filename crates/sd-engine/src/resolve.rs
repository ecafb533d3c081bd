//! From an operation to a task: what the model can do, and what it does when the request leaves something open.

use operations_contract::{
    Common, Feature, FieldError, ImageData, ImageInpaint, ModelCapabilities, Operation,
};
use serde_json::Value;

use crate::canvas::{self, Canvas};
use crate::images;
use crate::picture::{Mask, Picture};
use crate::prompts;
use crate::task::{ControlTask, GenerationTask, Source, Task};
use crate::upscale;

/// What the model has against an operation.
#[derive(Debug, Default)]
pub(crate) struct Objections {
    /// Values that could be others: the client's mistake.
    pub(crate) faults: Vec<FieldError>,
    /// What the model cannot do at all.
    pub(crate) unsupported: Vec<FieldError>,
}

/// Everything that is decided about an accepted operation.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) task: Task,
    /// The operation with every value filled in, without its images.
    pub(crate) operation: Operation,
    /// The same as JSON; images are told by their size.
    pub(crate) parameters: Value,
    /// What the client should know.
    pub(crate) notes: Vec<String>,
    /// What the file of a picture that is enlarged tells of its making.
    pub(crate) told: Option<String>,
}

/// Holds an operation against the model, without looking into its images.
pub(crate) fn objections(operation: &Operation, model: &ModelCapabilities) -> Objections {
    let Some(common) = operation.common() else { return upscale::objections(operation, model) };
    let mut objections = Objections::default();
    for (field, side) in [("width", common.width), ("height", common.height)] {
        let Some(side) = side else { continue };
        let limit = format!("{}..={}", model.min_side, model.max_side);
        if !(model.min_side..=model.max_side).contains(&side) {
            let message = format!("{side} is outside {limit}, the sizes of model `{}`", model.id);
            objections.faults.push(FieldError::new(field, message).with_value(side).with_limit(limit));
        } else if side % model.size_multiple != 0 {
            let message = format!("{side} is no multiple of {}", model.size_multiple);
            let limit = format!("a multiple of {} in {limit}", model.size_multiple);
            objections.faults.push(FieldError::new(field, message).with_value(side).with_limit(limit));
        }
    }
    if common.num_images > model.max_images {
        let limit = format!("1..={}", model.max_images);
        let message = format!("{} is outside {limit}, the limit of model `{}`", common.num_images, model.id);
        let fault = FieldError::new("num_images", message).with_value(common.num_images);
        objections.faults.push(fault.with_limit(limit));
    }
    if model.has(Feature::ClipSkip) && common.clip_skip > model.max_clip_skip {
        let limit = format!("0..={}", model.max_clip_skip);
        let message = format!("{} is outside {limit}, the limit of model `{}`", common.clip_skip, model.id);
        let fault = FieldError::new("clip_skip", message).with_value(common.clip_skip);
        objections.faults.push(fault.with_limit(limit));
    }
    if model.has(Feature::Loras) {
        objections.faults.extend(unknown_loras(common, model));
    }

    let unsupported = &mut objections.unsupported;
    named(unsupported, model, "operation", Some(operation.kind()), &model.operations);
    named(unsupported, model, "sampler", common.sampler, &model.samplers);
    named(unsupported, model, "schedule", common.schedule, &model.schedules);
    named(unsupported, model, "rng", Some(common.rng), &model.rngs);
    let hires = common.hires.filter(|_| model.has(Feature::Hires));
    named(unsupported, model, "hires.upscaler", hires.map(|hires| hires.upscaler), &model.upscalers);
    named(unsupported, model, "preview.method", common.preview.map(|p| p.method), &model.previews);
    let sampler = common.sampler.unwrap_or(model.default_sampler);
    if let Some(eta) = common.eta.filter(|_| model.has(Feature::Eta) && !sampler.takes_eta()) {
        let takers: Vec<_> = model.samplers.iter().filter(|sampler| sampler.takes_eta()).collect();
        let takers = takers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let message = format!("`{sampler}` takes none; {takers} do");
        unsupported.push(FieldError::new("eta", message).with_value(eta).with_limit(takers));
    }
    let mut needs = vec![
        ("eta", common.eta.is_some(), Feature::Eta),
        ("guidance_rescale", common.guidance_rescale.is_some(), Feature::GuidanceRescale),
        ("guidance_interval", common.guidance_interval.is_some(), Feature::GuidanceInterval),
        ("loras", !common.loras.is_empty(), Feature::Loras),
        ("control", !common.control.is_empty(), Feature::Control),
        ("guess_mode", common.guess_mode, Feature::Control),
        ("tiling", !common.tiling.is_off(), Feature::Tiling),
        ("hires", common.hires.is_some(), Feature::Hires),
        ("refiner", common.refiner.is_some(), Feature::Refiner),
        ("timestep_spacing", common.timestep_spacing.is_some(), Feature::TimestepSpacing),
        ("clip_skip", common.clip_skip > 0, Feature::ClipSkip),
        ("prompt_weighting", common.prompt_weighting == Some(true), Feature::PromptWeighting),
        ("negative_prompt", !common.negative_prompt.is_empty(), Feature::NegativePrompt),
        ("prompt_2", filled(&common.prompt_2), Feature::Prompt2),
        ("negative_prompt_2", filled(&common.negative_prompt_2), Feature::Prompt2),
    ];
    if let Operation::ImageInpaint(request) = operation {
        needs.push(("mask_blur", request.mask_blur > 0, Feature::MaskBlur));
        needs.push(("padding_mask_crop", request.padding_mask_crop.is_some(), Feature::PaddingMaskCrop));
    }
    if common.hires.is_some() && matches!(operation, Operation::ImageInpaint(_)) {
        let message = "is not possible together with a mask";
        unsupported.push(FieldError::new("hires", message));
    }
    if common.hires.is_some() && common.refiner.is_some() {
        unsupported.push(FieldError::new("refiner", "is not possible together with hires"));
    }
    for (field, wanted, feature) in needs {
        if wanted && !model.has(feature) {
            unsupported.push(FieldError::new(field, format!("is beyond model `{}`", model.id)));
        }
    }
    if model.has(Feature::Control) {
        unknown_controls(unsupported, common, model);
    }
    objections
}

fn filled(text: &Option<String>) -> bool {
    text.as_ref().is_some_and(|text| !text.is_empty())
}

/// Refuses kinds of control that no ControlNet of the model answers to.
fn unknown_controls(unsupported: &mut Vec<FieldError>, common: &Common, model: &ModelCapabilities) {
    let known = model.controls.join(", ");
    for (index, control) in common.control.iter().enumerate() {
        if !model.controls.contains(&control.kind) {
            let message =
                format!("`{}` is no control of model `{}`, which has {known}", control.kind, model.id);
            let fault = FieldError::new(format!("control[{index}].kind"), message);
            unsupported.push(fault.with_value(control.kind.as_str()).with_limit(&known));
        }
    }
}

/// The adapters that the worker does not have.
fn unknown_loras<'a>(
    common: &'a Common,
    model: &'a ModelCapabilities,
) -> impl Iterator<Item = FieldError> + 'a {
    let unknown = common.loras.iter().enumerate().filter(|(_, lora)| !model.loras.contains(&lora.name));
    unknown.map(|(index, lora)| {
        let has = model.loras.join(", ");
        let message = format!("`{}` is unknown to model `{}`, which has {has}", lora.name, model.id);
        FieldError::new(format!("loras[{index}].name"), message).with_value(lora.name.clone()).with_limit(has)
    })
}

pub(crate) fn named<T: Copy + PartialEq + std::fmt::Display>(
    unsupported: &mut Vec<FieldError>,
    model: &ModelCapabilities,
    field: &str,
    wanted: Option<T>,
    works: &[T],
) {
    let Some(wanted) = wanted.filter(|wanted| !works.contains(wanted)) else { return };
    let works = works.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let message = match works.as_str() {
        "" => format!("`{wanted}` is beyond model `{}`, which has none", model.id),
        works => format!("`{wanted}` is beyond model `{}`, which has {works}", model.id),
    };
    unsupported.push(FieldError::new(field, message).with_value(wanted.to_string()).with_limit(works));
}

/// Fills in what is open and decodes the images. The operation is valid and the model has no objections.
pub(crate) fn resolve(
    mut operation: Operation,
    model: &ModelCapabilities,
    draw_seed: impl FnOnce() -> u64,
) -> Result<Resolved, Vec<FieldError>> {
    let mut inputs = Inputs::default();
    let source = inputs.source(&mut operation, model);
    let common = match &mut operation {
        Operation::ImageGeneration(request) => &mut request.common,
        Operation::ImageTransform(request) => &mut request.common,
        Operation::ImageInpaint(request) => &mut request.common,
        Operation::ImageUpscale(request) => return upscale::resolve(std::mem::take(request), model),
    };
    let control = inputs.control(common);
    if !inputs.faults.is_empty() {
        return Err(inputs.faults);
    }

    let mut notes = std::mem::take(&mut inputs.notes);
    let (own_width, own_height) = match &source {
        // A part of a picture is worked on at the model's own size, and the result is as large as the picture.
        Source::Noise | Source::Inpaint { padding_mask_crop: Some(_), .. } => {
            (model.default_width, model.default_height)
        }
        Source::Inpaint { image, .. } => match unscaled_size(image, common, model) {
            Some(size) => size,
            None => fitting_size(image, common, model, &mut notes),
        },
        Source::Image { image, .. } => fitting_size(image, common, model, &mut notes),
    };
    let task = GenerationTask {
        model: model.id.clone(),
        prompt: common.prompt.clone(),
        negative_prompt: common.negative_prompt.clone(),
        prompt_2: common.prompt_2.clone(),
        negative_prompt_2: common.negative_prompt_2.clone(),
        width: *common.width.get_or_insert(own_width),
        height: *common.height.get_or_insert(own_height),
        steps: *common.steps.get_or_insert(model.default_steps),
        guidance_scale: *common.guidance_scale.get_or_insert(model.default_guidance_scale),
        guidance_rescale: common.guidance_rescale.unwrap_or(0.0),
        guidance_interval: common.guidance_interval,
        seed: *common.seed.get_or_insert_with(draw_seed),
        sampler: *common.sampler.get_or_insert(model.default_sampler),
        schedule: *common.schedule.get_or_insert(model.default_schedule),
        timestep_spacing: common.timestep_spacing,
        eta: common.eta,
        num_images: common.num_images,
        clip_skip: common.clip_skip,
        prompt_weighting: *common.prompt_weighting.get_or_insert(model.has(Feature::PromptWeighting)),
        rng: common.rng,
        loras: common.loras.clone(),
        control,
        guess_mode: common.guess_mode,
        tiling: common.tiling,
        hires: common.hires,
        refiner: common.refiner,
        preview: common.preview,
        source,
    };
    let faults = hires_faults(&task, model);
    if !faults.is_empty() {
        return Err(faults);
    }
    common.model = Some(model.id.clone());
    let faults = prompts::faults(common);
    if !faults.is_empty() {
        return Err(faults);
    }
    let parameters = inputs.describe(&operation);
    Ok(Resolved { task: Task::Generation(Box::new(task)), operation, parameters, notes, told: None })
}

/// What is wrong with a second pass, which can only be told when everything else is known.
fn hires_faults(task: &GenerationTask, model: &ModelCapabilities) -> Vec<FieldError> {
    let Some(hires) = task.hires else { return Vec::new() };
    let mut faults = Vec::new();
    let longest = f64::from(task.width.max(task.height));
    if longest * hires.scale > f64::from(model.max_side) {
        let limit = f64::from(model.max_side) / longest;
        let message = format!(
            "{} times {longest} pixels is more than {}, the largest side of model `{}`",
            hires.scale, model.max_side, model.id
        );
        faults.push(FieldError::new("hires.scale", message).with_value(hires.scale).with_limit(limit));
    }
    let steps = hires.steps.unwrap_or(task.steps);
    if f64::from(steps) * hires.strength < 1.0 {
        let message = format!("{} of {steps} steps is less than one step", hires.strength);
        let limit = format!("at least {}", 1.0 / f64::from(steps));
        faults.push(FieldError::new("hires.strength", message).with_value(hires.strength).with_limit(limit));
    }
    faults
}

/// The size that the model works at where the picture keeps every pixel: its edge is continued to the next multiple, and
/// cut off again. `None` where that is not to be: another size is asked for, or the model cannot do it.
fn unscaled_size(image: &Picture, common: &Common, model: &ModelCapabilities) -> Option<(u32, u32)> {
    let up = |side: u32| {
        let side = side.checked_next_multiple_of(model.size_multiple.max(1))?;
        (model.min_side..=model.max_side).contains(&side).then_some(side)
    };
    (common.width.is_none() && common.height.is_none()).then_some(())?;
    Some((up(image.width())?, up(image.height())?))
}

/// The size of a result that follows its input image: as large as it, within the model's limits, snapped down.
fn fitting_size(
    image: &Picture,
    common: &Common,
    model: &ModelCapabilities,
    notes: &mut Vec<String>,
) -> (u32, u32) {
    let (width, height) = (image.width(), image.height());
    let longest = width.max(height).max(1);
    let scale = (f64::from(model.max_side) / f64::from(longest)).min(1.0);
    let multiple = model.size_multiple.max(1);
    let snap = |side: u32| {
        let scaled = (f64::from(side) * scale).round() as u32;
        (scaled / multiple * multiple).max(model.min_side.next_multiple_of(multiple))
    };
    let fitting = (snap(width), snap(height));
    let wanted = (common.width.unwrap_or(fitting.0), common.height.unwrap_or(fitting.1));
    if wanted != (width, height) {
        notes.push(format!(
            "the image has {width} x {height} pixels; the result has {} x {}",
            wanted.0, wanted.1
        ));
    }
    fitting
}

/// The images of an operation on their way out of it.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    pub(crate) faults: Vec<FieldError>,
    /// Path and description of each.
    seen: Vec<(String, String)>,
    /// What the client should know of them.
    pub(crate) notes: Vec<String>,
}

impl Inputs {
    fn source(&mut self, operation: &mut Operation, model: &ModelCapabilities) -> Source {
        match operation {
            Operation::ImageGeneration(_) | Operation::ImageUpscale(_) => Source::Noise,
            Operation::ImageTransform(request) => {
                match self.take("init_image", &mut request.init_image, images::picture) {
                    Some(image) => Source::Image { image, strength: request.strength },
                    None => Source::Noise,
                }
            }
            Operation::ImageInpaint(request) => {
                let Some((image, mask)) = self.inpaint(request, model) else { return Source::Noise };
                Source::Inpaint {
                    image,
                    mask,
                    strength: request.strength,
                    mask_blur: request.mask_blur,
                    padding_mask_crop: request.padding_mask_crop,
                }
            }
        }
    }

    /// The picture and the mask of an inpaint, wherever the request takes it from. `None`: there is a fault.
    fn inpaint(&mut self, request: &mut ImageInpaint, model: &ModelCapabilities) -> Option<(Picture, Mask)> {
        let (image, mask) = match request.mask_from_alpha {
            true => {
                let both = self.take("init_image", &mut request.init_image, images::picture_and_mask)?;
                (both.0, Some(both.1))
            }
            false => {
                let image = self.take("init_image", &mut request.init_image, images::picture);
                let mask = match request.mask_image.is_empty() {
                    true => None,
                    false => Some(self.take("mask_image", &mut request.mask_image, images::mask)?),
                };
                (image?, mask)
            }
        };
        let size = (image.width(), image.height());
        if let Some(mask) = mask.as_ref().filter(|mask| (mask.width(), mask.height()) != size) {
            let message = format!(
                "has {} x {} pixels, init_image {} x {}: they must be equally large",
                mask.width(),
                mask.height(),
                size.0,
                size.1
            );
            self.faults.push(FieldError::new("mask_image", message));
            return None;
        }
        let Some(extend) = request.extend else {
            if mask.is_none() {
                self.faults.push(FieldError::new("mask_image", "is missing"));
            }
            return Some((image, mask?));
        };
        match canvas::extended(&image, mask.as_ref(), extend, request, model) {
            Ok(Canvas { image, mask, note }) => {
                self.notes.extend(note);
                Some((image, mask))
            }
            Err(message) => {
                self.faults.push(FieldError::new("extend", message));
                None
            }
        }
    }

    fn control(&mut self, common: &mut Common) -> Vec<ControlTask> {
        let mut tasks = Vec::new();
        for (index, control) in common.control.iter_mut().enumerate() {
            let path = format!("control[{index}].image");
            let preprocess = control.preprocess;
            let decode = |data: &ImageData| images::control(data, preprocess);
            if let Some(image) = self.take(&path, &mut control.image, decode) {
                tasks.push(ControlTask {
                    kind: control.kind.clone(),
                    image,
                    strength: control.strength,
                    start: control.start,
                    end: control.end,
                });
            }
        }
        tasks
    }

    /// Takes the bytes out of the operation: the registry remembers the request, and should not weigh its images.
    pub(crate) fn take<T>(
        &mut self,
        path: &str,
        data: &mut ImageData,
        decode: impl FnOnce(&ImageData) -> Result<T, String>,
    ) -> Option<T> {
        let data = std::mem::take(data);
        self.seen.push((path.to_owned(), format!("{} bytes", data.len())));
        self.notes.extend(images::note(&data).map(|note| format!("{path} {note}")));
        decode(&data).map_err(|message| self.faults.push(FieldError::new(path, message))).ok()
    }

    pub(crate) fn describe(&self, operation: &Operation) -> Value {
        // An operation is a plain object of texts and numbers: it always serializes.
        let mut value = serde_json::to_value(operation).unwrap_or_default();
        for (path, description) in &self.seen {
            let pointer = format!("/{}", path.replace('[', "/").replace("].", "/"));
            match value.pointer_mut(&pointer) {
                Some(place) => *place = description.clone().into(),
                // Optional pictures that were taken out are not there any more.
                None => drop(
                    value
                        .as_object_mut()
                        .map(|fields| fields.insert(path.clone(), description.clone().into())),
                ),
            }
        }
        value
    }
}
