//! Second passes against those of diffusers (`fixtures/<family>/hires.json`, made by `tools/reference`), and their laws.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use sd_inference::{
    Error, GenerationRequest, Hires, InitImage, InitMask, LoadOptions, MemoryLimit, ModelSource, Pipeline,
    PreviewMethod, Seamless, UpscaleOptions, Upscaler,
};

use support::{
    FAMILIES, TOLERANCE, each_is_the_image_of_its_own_seed, fixtures, images, largest_difference, pipeline,
    request, runs,
};

/// What may differ where pictures are scaled: PIL rounds to bytes between the two directions of its filter, and the model
/// makes more of that.
const SCALED_TOLERANCE: u8 = 8;

const TWICE: Hires = Hires { scale: 2.0, upscaler: Upscaler::Latent, strength: 0.5, steps: None };

fn small(hires: Hires) -> GenerationRequest {
    GenerationRequest {
        width: Some(40),
        height: Some(48),
        steps: Some(4),
        seed: 5,
        sampler: Some("ddim".parse().unwrap()),
        hires: Some(hires),
        ..GenerationRequest::new("a red circle on green grass")
    }
}

#[test]
fn the_same_seed_gives_the_reference_picture() {
    for family in FAMILIES {
        let pipeline = pipeline(family, "model");
        for run in runs(family, "hires.json") {
            let latent = run["upscaler"] == "latent";
            let hires = Hires {
                scale: run["scale"].as_f64().unwrap(),
                upscaler: if latent { Upscaler::Latent } else { Upscaler::Lanczos },
                strength: run["strength"].as_f64().unwrap(),
                steps: run["second_steps"].as_u64().map(|steps| steps as usize),
            };
            let found = images(&pipeline, &GenerationRequest { hires: Some(hires), ..request(&run) });
            let files = run["files"].as_array().unwrap();
            assert_eq!(found.len(), files.len());
            for (file, image) in files.iter().zip(&found) {
                let file = file.as_str().unwrap();
                let expected = image::open(fixtures(family).join(file)).unwrap().to_rgb8();
                let difference = largest_difference(&expected, image);
                println!("{family} {file}: largest difference {difference} of 255");
                let allowed = if latent { TOLERANCE } else { SCALED_TOLERANCE };
                assert!(difference <= allowed, "{family} {file}: differs by {difference} of 255");
            }
        }
    }
}

#[test]
fn steps_and_sizes_are_those_of_both_passes() {
    let pipeline = pipeline("sd15", "model");
    let mut generation = pipeline.begin(&small(TWICE)).unwrap();
    assert_eq!((generation.total_steps(), generation.size()), (6, (80, 96)));
    let mut sizes = Vec::new();
    let mut count = 0;
    while let Some(step) = generation.step().unwrap() {
        count += 1;
        assert_eq!((step.index, step.total, generation.steps_taken()), (count, 6, count));
        assert_eq!((generation.total_steps(), generation.size()), (6, (80, 96)));
        sizes.push(generation.preview(PreviewMethod::LatentRgb).unwrap().unwrap().dimensions());
    }
    assert_eq!(sizes, [(40, 48), (40, 48), (40, 48), (40, 48), (80, 96), (80, 96)]);
    assert_eq!(generation.finish().unwrap().images[0].0.dimensions(), (80, 96));
}

#[test]
fn an_image_of_several_is_the_image_of_its_own_seed() {
    let pipeline = pipeline("sdxl", "model");
    for upscaler in [Upscaler::Latent, Upscaler::Lanczos] {
        let sampler = Some("euler_a".parse().unwrap());
        let request = GenerationRequest { num_images: 2, sampler, ..small(Hires { upscaler, ..TWICE }) };
        each_is_the_image_of_its_own_seed(&pipeline, &request);
    }
}

/// With a network that is loaded beside the model: another picture than by the filter, of the size that was asked for
/// whatever the network's own scale is, and an image of several is still that of its own seed.
#[test]
fn a_network_enlarges_where_one_is_loaded() {
    let source = ModelSource::folder(fixtures("sd15").join("model")).unwrap();
    let load = |file: &str| {
        let upscaler = Some(fixtures("upscalers").join(file));
        Pipeline::load(&source, &LoadOptions { upscaler, ..LoadOptions::default() })
    };
    let by = |upscaler| small(Hires { upscaler, ..TWICE });
    let mut pictures = Vec::new();
    for file in ["basic_2x.safetensors", "basic_4x.safetensors"] {
        let pipeline = load(file).unwrap();
        assert!(pipeline.info().upscaler.is_some());
        let request = GenerationRequest { num_images: 2, ..by(Upscaler::Network) };
        each_is_the_image_of_its_own_seed(&pipeline, &request);
        let picture = images(&pipeline, &request).remove(0);
        assert_eq!(picture.dimensions(), (80, 96));
        assert!(largest_difference(&picture, &images(&pipeline, &by(Upscaler::Lanczos))[0]) > 3);
        pictures.push(picture);
    }
    assert!(pictures[0] != pictures[1]);

    let without = pipeline("sd15", "model");
    let error = without.begin(&by(Upscaler::Network)).err().unwrap().to_string();
    assert!(error.contains("hires.upscaler"), "{error}");
    let error = load("expected.safetensors").err().unwrap().to_string();
    assert!(error.contains("no ESRGAN network"), "{error}");
}

/// The network's weights count with the model's, and what it takes for a picture is known before the first pass begins.
#[test]
fn the_memory_of_a_network_is_counted() {
    let source = ModelSource::folder(fixtures("sd15").join("model")).unwrap();
    let options = |memory| LoadOptions {
        upscaler: Some(fixtures("upscalers").join("basic_4x.safetensors")),
        memory,
        ..LoadOptions::default()
    };
    let weights = |options: &LoadOptions| Pipeline::estimate_memory(&source, options).unwrap().weights;
    let with = weights(&options(MemoryLimit::Off));
    let without = weights(&LoadOptions::default());
    assert!(with > without + 10_000, "{with} with it, {without} without");

    let load = |bytes| {
        let small = LoadOptions { width: Some(40), height: Some(48), ..options(MemoryLimit::Bytes(bytes)) };
        Pipeline::load(&source, &small).unwrap()
    };
    let by = |upscaler| small(Hires { upscaler, ..TWICE });
    let pipeline = load(with + 2_500_000);
    assert_eq!(images(&pipeline, &by(Upscaler::Lanczos)).len(), 1);
    let error = pipeline.begin(&by(Upscaler::Network)).err().unwrap();
    assert!(matches!(error, Error::NotEnoughMemory { .. }), "{error}");
    assert!(error.to_string().contains("width 80 and height 96 need 3."), "{error}");
    let picture = image::RgbImage::new(40, 48);
    let error = pipeline.begin_upscale(&picture, &UpscaleOptions::default()).err().unwrap().to_string();
    assert!(error.contains("enlarging 40x48 pixels needs 3."), "{error}");
    let roomy = load(with + 8_000_000);
    assert!(images(&roomy, &by(Upscaler::Network)).len() == 1);
    assert!(roomy.begin_upscale(&picture, &UpscaleOptions::default()).is_ok());
}

/// What enlarges between the passes sees around edges that meet.
#[test]
fn edges_meet_between_the_passes() {
    let source = ModelSource::folder(fixtures("sd15").join("model")).unwrap();
    let upscaler = Some(fixtures("upscalers").join("basic_2x.safetensors"));
    let pipeline = Pipeline::load(&source, &LoadOptions { upscaler, ..LoadOptions::default() }).unwrap();
    for upscaler in [Upscaler::Lanczos, Upscaler::Network] {
        // One step of eight: what was enlarged shows through.
        let hires = Hires { scale: 1.6, upscaler, strength: 0.13, steps: Some(8) };
        let seamless = Seamless { x: true, y: true };
        let picture = images(&pipeline, &GenerationRequest { seamless, ..small(hires) }).remove(0);
        let (width, height) = picture.dimensions();
        let apart = |a: (u32, u32), b: (u32, u32)| {
            let (a, b) = (picture.get_pixel(a.0, a.1), picture.get_pixel(b.0, b.1));
            a.0.iter().zip(b.0).map(|(a, b)| f64::from(a.abs_diff(b))).sum::<f64>()
        };
        let step = |x: u32| (0..height).map(|y| apart((x, y), ((x + 1) % width, y))).sum::<f64>();
        let inside = (0..width - 1).map(step).sum::<f64>() / f64::from(width - 1);
        println!("{upscaler:?}: seam {:.0}, inside {inside:.0}", step(width - 1));
        assert!(step(width - 1) < 1.5 * inside, "{upscaler:?}: the seam is steeper than the picture");
    }
}

#[test]
fn what_cannot_be_done_is_refused_by_field() {
    let pipeline = pipeline("sd15", "model");
    let image = image::RgbImage::new(40, 48);
    let mask = InitMask { mask: image::GrayImage::new(40, 48), ..InitMask::default() };
    let masked = InitImage { image, strength: 1.0, mask: Some(mask) };
    for (field, request) in [
        ("hires.scale", small(Hires { scale: 0.9, ..TWICE })),
        ("hires.scale", small(Hires { scale: f64::NAN, ..TWICE })),
        ("hires.scale", small(Hires { scale: 4.5, ..TWICE })),
        ("hires.strength", small(Hires { strength: 1.1, ..TWICE })),
        ("hires.strength", small(Hires { strength: 0.2, ..TWICE })),
        ("hires", GenerationRequest { init: Some(masked), ..small(TWICE) }),
    ] {
        let error = pipeline.begin(&request).err().unwrap().to_string();
        assert!(error.contains(field), "{field}: {error}");
    }
}
