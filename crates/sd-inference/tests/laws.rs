//! The laws of generations over every family, mode and sampler, on tiny models: finite, repeatable, the same alone as among
//! others; prompt and seed matter; guidance 1 is no guidance; one that is dropped half-way leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../../sd-models/tests/support/controlnet.rs"]
mod nets;
mod support;

use image::{GrayImage, Luma, Rgb, RgbImage, imageops};
use sd_inference::schedulers::Sampler;
use sd_inference::{
    Control, Extend, GenerationRequest, Hires, InitImage, InitMask, LoadOptions, ModelSource, Pipeline,
    Refiner, Seamless, Upscaler,
};

use support::{
    FAMILIES, each_is_the_image_of_its_own_seed, fixtures, images, inpainting_model, largest_difference,
    pipeline,
};

const SIDE: u32 = 48;

/// What a request can start from, and how it goes on.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Text,
    Seamless,
    Hires,
    HiresOfPixels,
    Image,
    Inpaint,
    InpaintPart,
    Outpaint,
}

const MODES: [Mode; 8] = [
    Mode::Text,
    Mode::Seamless,
    Mode::Hires,
    Mode::HiresOfPixels,
    Mode::Image,
    Mode::Inpaint,
    Mode::InpaintPart,
    Mode::Outpaint,
];

fn request(mode: Mode, sampler: Sampler) -> GenerationRequest {
    let image = RgbImage::from_fn(SIDE, SIDE, |x, y| Rgb([x as u8 * 5, y as u8 * 5, 90]));
    let mask = GrayImage::from_fn(SIDE, SIDE, |x, _| Luma([if x < SIDE / 2 { 255 } else { 0 }]));
    let init = |mask| Some(InitImage { image: image.clone(), strength: 0.8, mask });
    let base = GenerationRequest {
        sampler: Some(sampler),
        width: Some(SIDE as usize),
        height: Some(SIDE as usize),
        steps: Some(4),
        seed: 11,
        ..GenerationRequest::new("a red circle on green grass")
    };
    match mode {
        Mode::Text => base,
        Mode::Seamless => GenerationRequest { seamless: Seamless { x: true, y: true }, ..base },
        Mode::Hires | Mode::HiresOfPixels => {
            let upscaler = if mode == Mode::Hires { Upscaler::Latent } else { Upscaler::Lanczos };
            let hires = Hires { scale: 1.5, upscaler, strength: 0.7, steps: None };
            GenerationRequest { hires: Some(hires), ..base }
        }
        Mode::Image => GenerationRequest { init: init(None), ..base },
        Mode::Inpaint => {
            GenerationRequest { init: init(Some(InitMask { mask, ..InitMask::default() })), ..base }
        }
        Mode::InpaintPart => {
            let mask = InitMask { mask, blur: 1, padding: Some(4) };
            GenerationRequest { init: init(Some(mask)), ..base }
        }
        Mode::Outpaint => {
            let extend = Extend { right: 16, overlap: 8, ..Extend::default() };
            let small = imageops::crop_imm(&image, 0, 0, SIDE - 16, SIDE).to_image();
            let (image, mask) = extend.canvas(&small, None).unwrap();
            let mask = Some(InitMask { mask, ..InitMask::default() });
            GenerationRequest { init: Some(InitImage { image, strength: 0.8, mask }), ..base }
        }
    }
}

fn check(family: &str, pipeline: &Pipeline, modes: &[Mode]) {
    check_with(family, pipeline, modes, |request| request);
}

/// The laws for requests to which `more` adds something.
fn check_with(
    family: &str,
    pipeline: &Pipeline,
    modes: &[Mode],
    more: impl Fn(GenerationRequest) -> GenerationRequest,
) {
    for mode in modes {
        for sampler in Sampler::ALL {
            let request = more(request(*mode, *sampler));
            let name = format!("{family}, {mode:?}, {sampler}");
            let draw = |request: &GenerationRequest| images(pipeline, request).remove(0);
            let picture = draw(&request);

            let mut half = pipeline.begin(&request).unwrap();
            half.step().unwrap();
            assert!(
                half.latents().flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|v| v.is_finite())
            );
            drop(half);
            assert!(
                draw(&request) == picture,
                "{name}: not the same again after one that was dropped half-way"
            );

            for (what, other) in [
                ("prompt", GenerationRequest { prompt: "two blue stars, night".into(), ..request.clone() }),
                ("seed", GenerationRequest { seed: 12, ..request.clone() }),
            ] {
                assert!(
                    largest_difference(&draw(&other), &picture) > 3,
                    "{name}: the {what} does not matter"
                );
            }

            let unguided = GenerationRequest { guidance_scale: Some(1.0), ..request.clone() };
            let negative = Some("low quality, blurry".to_owned());
            let of_negative = GenerationRequest { negative_prompt: negative, ..unguided.clone() };
            let plain = draw(&unguided);
            assert!(draw(&of_negative) == plain, "{name}: a negative prompt counts without guidance");
            let barely = GenerationRequest { guidance_scale: Some(1.0 + 1e-6), ..unguided };
            let difference = largest_difference(&draw(&barely), &plain);
            assert!(difference <= 1, "{name}: guidance 1 is {difference} of 255 away from none");

            each_is_the_image_of_its_own_seed(pipeline, &GenerationRequest { num_images: 2, ..request });
        }
    }
    println!("{family}: {} modes, {} samplers", modes.len(), Sampler::ALL.len());
}

#[test]
fn every_mode_and_sampler_of_sd15() {
    check(FAMILIES[0], &pipeline(FAMILIES[0], "model"), &MODES);
}

#[test]
fn every_mode_and_sampler_of_sd21() {
    check(FAMILIES[1], &pipeline(FAMILIES[1], "model"), &MODES);
}

#[test]
fn every_mode_and_sampler_of_sdxl() {
    check(FAMILIES[2], &pipeline(FAMILIES[2], "model"), &MODES);
}

#[test]
fn every_sampler_of_a_model_made_for_inpainting() {
    let (_folder, pipeline) = inpainting_model("StableDiffusionInpaintPipeline");
    check("sd15 for inpainting", &pipeline, &[Mode::Inpaint, Mode::InpaintPart, Mode::Outpaint]);
}

/// What a ControlNet and a refiner are asked for: not the second passes, which a refiner refuses.
const STARTS: [Mode; 3] = [Mode::Text, Mode::Image, Mode::Inpaint];

#[test]
fn every_sampler_with_a_controlnet() {
    let stripes = RgbImage::from_fn(SIDE, SIDE, |x, _| Rgb([if x / 8 % 2 == 0 { 255 } else { 0 }; 3]));
    for family in FAMILIES {
        let pipeline = pipeline(family, "model");
        let folder = tempfile::tempdir().unwrap();
        nets::folder(&fixtures(family), "net", folder.path());
        let net = pipeline.load_controlnet(folder.path()).unwrap();
        check_with(family, &pipeline, &STARTS, |request| {
            let image = stripes.clone();
            let control = Control { net: net.clone(), image, conditioning_scale: 0.9, start: 0.0, end: 0.8 };
            GenerationRequest { controls: vec![control], ..request }
        });
    }
}

#[test]
fn every_sampler_with_a_refiner() {
    let source = |family| ModelSource::folder(fixtures(family).join("model")).unwrap();
    let options = LoadOptions { refiner: Some(source("refiner")), ..LoadOptions::default() };
    let pipeline = Pipeline::load(&source("sdxl"), &options).unwrap();
    check_with("sdxl with its refiner", &pipeline, &STARTS, |request| GenerationRequest {
        refiner: Some(Refiner { start: 0.6 }),
        ..request
    });
}
