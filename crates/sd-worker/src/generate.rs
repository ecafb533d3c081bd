//! `sd-worker generate`, `transform` and `inpaint`: one job on a worker of its own, through the same router as every other.

use std::path::Path;
use std::time::{Duration, Instant};

use operations_contract::{
    Common, Extend, Hires, ImageData, ImageGeneration, ImageInpaint, ImageTransform, Operation, Output,
    Refiner,
};
use sd_engine::JobRegistry;
use serde_json::json;

use crate::args::{GenerateArgs, InpaintArgs, TransformArgs};
use crate::exit::{Failure, say};
use crate::follow;
use crate::loras;
use crate::model;
use crate::output::OutputFiles;
use crate::part_names;
use crate::story::{Bar, Done};
use crate::worker::Worker;

/// `sd-worker generate`.
pub(crate) fn run(args: &GenerateArgs) -> Result<(), Failure> {
    make(args, |common| Operation::ImageGeneration(ImageGeneration { common }))
}

/// `sd-worker transform`.
pub(crate) fn transform(args: &TransformArgs) -> Result<(), Failure> {
    let (init_image, strength) = (read("image", &args.image)?, args.strength);
    make(&args.generate, |common| {
        let init_image = init_image.clone();
        Operation::ImageTransform(ImageTransform { common, init_image, strength })
    })
}

/// `sd-worker inpaint`.
pub(crate) fn inpaint(args: &InpaintArgs) -> Result<(), Failure> {
    let request = inpaint_request(args)?;
    make(&args.generate, |common| Operation::ImageInpaint(ImageInpaint { common, ..request.clone() }))
}

/// What the flags of `inpaint` say beside those of `generate`.
pub(crate) fn inpaint_request(args: &InpaintArgs) -> Result<ImageInpaint, Failure> {
    Ok(ImageInpaint {
        common: Common::default(),
        init_image: read("image", &args.image)?,
        mask_image: args.mask.as_deref().map_or(Ok(ImageData::default()), |mask| read("mask", mask))?,
        mask_from_alpha: args.mask_from_alpha,
        extend: args.extend.map(|[left, top, right, bottom]| Extend {
            left,
            top,
            right,
            bottom,
            overlap: args.overlap,
        }),
        strength: args.strength,
        mask_blur: args.mask_blur,
        padding_mask_crop: args.padding_mask_crop,
    })
}

/// The bytes of an image file that a flag names.
pub(crate) fn read(flag: &str, path: &Path) -> Result<ImageData, Failure> {
    let refused = |reason: String| Failure::refused(format!("{flag} {}: {reason}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
    if bytes.is_empty() { Err(refused("is empty".into())) } else { Ok(ImageData::new(bytes)) }
}

fn make(args: &GenerateArgs, operation: impl Fn(Common) -> Operation) -> Result<(), Failure> {
    let start = Instant::now();
    // What the contract alone can refuse is refused before a model is loaded.
    let mut common = common(args)?;
    common.output.quality = args.quality;
    operation(common.clone()).validate().map_err(Failure::refused)?;
    let output = OutputFiles::reserve(&args.output)?;
    let previews = args.previews.file()?;
    common.output = Output { format: output.format(), metadata: !args.no_metadata, quality: args.quality };

    let worker = Worker::new(1, JobRegistry::in_memory().map_err(Failure::failed)?);
    let (router, models) = (worker.router.clone(), worker.models.clone());
    let pipeline = model::load(&args.model, [args.width, args.height])?;
    let nets = args.control.nets.load(&pipeline)?;
    let (loras, catalogue) = loras::chosen(&args.lora, args.model.lora_dir.as_deref(), &pipeline)?;
    common.loras = loras;
    let engine = worker.start(pipeline, nets, catalogue, args.model.name(), part_names::of(&args.model))?;
    let bar = Bar::new("step", args.json);
    let done = follow::to_the_end(&router, &models, engine, operation(common), bar, previews)?;
    report(args, output, &done, start.elapsed())
}

/// What the flags say of a request, save for its files and adapters.
pub(crate) fn common(args: &GenerateArgs) -> Result<Common, Failure> {
    Ok(Common {
        prompt: args.prompt.clone(),
        negative_prompt: args.negative_prompt.clone(),
        prompt_2: args.prompt_2.clone(),
        negative_prompt_2: args.negative_prompt_2.clone(),
        prompt_weighting: args.no_prompt_weighting.then_some(false),
        width: args.width,
        height: args.height,
        steps: args.steps,
        guidance_scale: args.guidance_scale,
        guidance_rescale: args.guidance_rescale,
        guidance_interval: args.guidance_interval,
        seed: args.seed,
        sampler: args.sampler,
        schedule: args.schedule,
        timestep_spacing: args.timestep_spacing,
        eta: args.eta,
        num_images: args.num_images,
        clip_skip: args.clip_skip,
        rng: args.rng,
        hires: args.hires_scale.map(|scale| Hires {
            scale,
            upscaler: args.hires_upscaler,
            strength: args.hires_strength,
            steps: args.hires_steps,
        }),
        refiner: args.model.refiner.as_ref().map(|_| Refiner { start: args.refiner_start }),
        tiling: args.tiling.map(Into::into).unwrap_or_default(),
        control: args.control.read()?,
        guess_mode: args.control.guess_mode,
        preview: args.previews.request(),
        ..Common::default()
    })
}

fn report(args: &GenerateArgs, output: OutputFiles, done: &Done, elapsed: Duration) -> Result<(), Failure> {
    let bytes: Vec<&[u8]> = done.images.iter().map(|image| image.image.bytes()).collect();
    let paths = output.write(&bytes)?;
    let seconds = elapsed.as_secs_f64();
    if args.json {
        let images: Vec<_> = paths
            .iter()
            .zip(&done.images)
            .map(|(path, image)| {
                json!({"file": path, "seed": image.seed, "width": image.width, "height": image.height,
                       "format": image.format})
            })
            .collect();
        let report = json!({"model": args.model.name(), "images": images, "elapsed_ms": elapsed.as_millis() as u64,
                            "timings": done.timings});
        return say(report);
    }
    for (path, image) in paths.iter().zip(&done.images) {
        let size = format!("{}x{}", image.width, image.height);
        say(format!("{}: {size}, seed {}", path.display(), image.seed))?;
    }
    say(format!("{seconds:.2} s ({:.2} s of them steps)", done.timings.denoise_ms as f64 / 1000.0))
}
