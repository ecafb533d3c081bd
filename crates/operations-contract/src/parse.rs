//! From JSON to the requests: types, names and unknown fields. Ranges are [`validate`](crate::validate)'s.

use crate::bounds;
use crate::fields::Fields;
use crate::image_data::ImageData;
use crate::names::Preprocessor;
use crate::request::{
    Common, Control, Extend, GuidanceInterval, Hires, ImageGeneration, ImageInpaint, ImageTransform, Lora,
    Output, Preview, Refiner, Tiling,
};

pub(crate) fn generation(fields: &mut Fields<'_>) -> ImageGeneration {
    ImageGeneration { common: common(fields) }
}

pub(crate) fn transform(fields: &mut Fields<'_>) -> ImageTransform {
    let default = ImageTransform::default();
    ImageTransform {
        common: common(fields),
        init_image: init_image(fields),
        strength: fields.number("strength").unwrap_or(default.strength),
    }
}

pub(crate) fn inpaint(fields: &mut Fields<'_>) -> ImageInpaint {
    let default = ImageInpaint::default();
    let mask_from_alpha = fields.flag("mask_from_alpha").unwrap_or(default.mask_from_alpha);
    let extend = fields.object("extend", extend);
    ImageInpaint {
        common: common(fields),
        init_image: init_image(fields),
        mask_image: match mask_from_alpha || extend.is_some() {
            true => fields.image("mask_image").unwrap_or_default(),
            false => required_image(fields, "mask_image"),
        },
        mask_from_alpha,
        extend,
        strength: fields.number("strength").unwrap_or(default.strength),
        mask_blur: fields.u32("mask_blur", bounds::MASK_BLUR).unwrap_or(default.mask_blur),
        padding_mask_crop: fields.u32("padding_mask_crop", bounds::PADDING_MASK_CROP),
    }
}

fn common(fields: &mut Fields<'_>) -> Common {
    let default = Common::default();
    Common {
        prompt: required_text(fields, "prompt"),
        model: fields.text("model"),
        negative_prompt: fields.text("negative_prompt").unwrap_or_default(),
        prompt_2: fields.text("prompt_2"),
        negative_prompt_2: fields.text("negative_prompt_2"),
        width: fields.u32("width", bounds::SIDE),
        height: fields.u32("height", bounds::SIDE),
        steps: fields.u32("steps", bounds::STEPS),
        guidance_scale: fields.number("guidance_scale"),
        guidance_rescale: fields.number("guidance_rescale"),
        guidance_interval: fields.object("guidance_interval", guidance_interval),
        seed: fields.u64("seed", 0..=u64::MAX),
        sampler: fields.name("sampler"),
        schedule: fields.name("schedule"),
        timestep_spacing: fields.name("timestep_spacing"),
        eta: fields.number("eta"),
        num_images: fields.u32("num_images", bounds::NUM_IMAGES).unwrap_or(default.num_images),
        clip_skip: fields.u32("clip_skip", bounds::CLIP_SKIP).unwrap_or(default.clip_skip),
        prompt_weighting: fields.flag("prompt_weighting"),
        rng: fields.name("rng").unwrap_or(default.rng),
        loras: fields.list("loras", bounds::MAX_LORAS, lora),
        control: fields.list("control", bounds::MAX_CONTROLS, control),
        guess_mode: fields.flag("guess_mode").unwrap_or(default.guess_mode),
        tiling: fields.object("tiling", tiling).unwrap_or_default(),
        hires: fields.object("hires", hires),
        refiner: fields.object("refiner", refiner),
        preview: fields.object("preview", preview),
        output: fields.object("output", output).unwrap_or_default(),
        priority: fields.name("priority").unwrap_or(default.priority),
        deadline_ms: fields.u64("deadline_ms", bounds::DEADLINE_MS),
        cancel_on_disconnect: fields.flag("cancel_on_disconnect").unwrap_or(default.cancel_on_disconnect),
        hive_id: fields.text("hive_id"),
        worker_id: fields.text("worker_id"),
    }
}

/// `init_image`, or its alias `input_image`; both at once would leave open which one is meant.
fn init_image(fields: &mut Fields<'_>) -> ImageData {
    match (fields.take("init_image"), fields.take("input_image")) {
        (Some(_), Some(_)) => {
            fields.conflict("input_image", "is another name of init_image: send one of them");
            // Whatever is wrong with it is told; what is right is not told to be missing.
            fields.image("init_image").unwrap_or_default()
        }
        (None, Some(_)) => required_image(fields, "input_image"),
        (_, None) => required_image(fields, "init_image"),
    }
}

pub(crate) fn required_image(fields: &mut Fields<'_>, name: &'static str) -> ImageData {
    if fields.take(name).is_none() {
        fields.missing(name);
    }
    fields.image(name).unwrap_or_default()
}

fn required_text(fields: &mut Fields<'_>, name: &'static str) -> String {
    if fields.take(name).is_none() {
        fields.missing(name);
    }
    fields.text(name).unwrap_or_default()
}

fn guidance_interval(fields: &mut Fields<'_>) -> GuidanceInterval {
    GuidanceInterval {
        start: fields.number("start").unwrap_or(0.0),
        end: fields.number("end").unwrap_or(1.0),
    }
}

fn extend(fields: &mut Fields<'_>) -> Extend {
    let default = Extend::default();
    let mut side = |name| fields.u32(name, bounds::EXTEND).unwrap_or_default();
    let (left, top, right, bottom) = (side("left"), side("top"), side("right"), side("bottom"));
    let overlap = fields.u32("overlap", bounds::EXTEND_OVERLAP).unwrap_or(default.overlap);
    Extend { left, top, right, bottom, overlap }
}

fn lora(fields: &mut Fields<'_>) -> Lora {
    Lora { name: required_text(fields, "name"), scale: fields.number("scale").unwrap_or(1.0) }
}

fn control(fields: &mut Fields<'_>) -> Control {
    Control {
        kind: required_text(fields, "kind"),
        image: required_image(fields, "image"),
        preprocess: fields.name("preprocess").unwrap_or(Preprocessor::None),
        strength: fields.number("strength").unwrap_or(1.0),
        start: fields.number("start").unwrap_or(0.0),
        end: fields.number("end").unwrap_or(1.0),
    }
}

pub(crate) fn tiling(fields: &mut Fields<'_>) -> Tiling {
    Tiling { x: fields.flag("x").unwrap_or_default(), y: fields.flag("y").unwrap_or_default() }
}

fn hires(fields: &mut Fields<'_>) -> Hires {
    let default = Hires::default();
    Hires {
        scale: fields.number("scale").unwrap_or(default.scale),
        upscaler: fields.name("upscaler").unwrap_or(default.upscaler),
        strength: fields.number("strength").unwrap_or(default.strength),
        steps: fields.u32("steps", bounds::STEPS),
    }
}

fn refiner(fields: &mut Fields<'_>) -> Refiner {
    Refiner { start: fields.number("start").unwrap_or(Refiner::default().start) }
}

fn preview(fields: &mut Fields<'_>) -> Preview {
    let default = Preview::default();
    Preview {
        every: fields.u32("every", bounds::PREVIEW_EVERY).unwrap_or(default.every),
        method: fields.name("method").unwrap_or(default.method),
        max_side: fields.u32("max_side", bounds::PREVIEW_MAX_SIDE).unwrap_or(default.max_side),
    }
}

pub(crate) fn output(fields: &mut Fields<'_>) -> Output {
    let default = Output::default();
    Output {
        format: fields.name("format").unwrap_or(default.format),
        quality: fields.u32("quality", bounds::QUALITY).unwrap_or(default.quality),
        metadata: fields.flag("metadata").unwrap_or(default.metadata),
    }
}
