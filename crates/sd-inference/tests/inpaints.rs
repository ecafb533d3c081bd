//! Inpainting against the pictures that diffusers made (`fixtures/<family>/inpaints.json`, made by `tools/reference`),
//! and its laws.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use image::{GrayImage, RgbImage};
use sd_inference::{GenerationRequest, InitImage, InitMask};

use support::{
    TOLERANCE, each_is_the_image_of_its_own_seed, fixtures, images, inpainting_model, largest_difference,
    pipeline, request, runs,
};

/// What may differ where a part is scaled, redrawn and scaled back: PIL rounds to bytes between the two directions of its
/// filter, and the model makes more of that.
const SCALED_TOLERANCE: u8 = 8;

fn picture(family: &str, file: &str) -> RgbImage {
    image::open(fixtures(family).join(file)).unwrap().to_rgb8()
}

fn mask(family: &str, file: &str) -> GrayImage {
    image::open(fixtures(family).join(file)).unwrap().to_luma8()
}

fn repaint(image: RgbImage, mask: InitMask, strength: f64) -> GenerationRequest {
    let (width, height) = image.dimensions();
    GenerationRequest {
        width: Some(width as usize),
        height: Some(height as usize),
        steps: Some(4),
        seed: 7,
        init: Some(InitImage { image, strength, mask: Some(mask) }),
        ..GenerationRequest::new("a red circle on green grass")
    }
}

#[test]
fn the_same_seed_gives_the_reference_picture() {
    let (_folder, own) = inpainting_model("StableDiffusionInpaintPipeline");
    for family in ["sd15", "sdxl"] {
        let plain = pipeline(family, "model");
        for run in runs(family, "inpaints.json") {
            let pipeline = if run["model"] == "model" { &plain } else { &own };
            let padding = run["padding"].as_u64().map(|padding| padding as u32);
            let mask = mask(family, run["mask"].as_str().unwrap());
            let init = InitImage {
                image: picture(family, run["init"].as_str().unwrap()),
                strength: run["strength"].as_f64().unwrap(),
                mask: Some(InitMask { mask, blur: run["blur"].as_u64().unwrap() as u32, padding }),
            };
            let request = GenerationRequest { init: Some(init), ..request(&run) };
            let file = run["files"][0].as_str().unwrap();
            let difference = largest_difference(&picture(family, file), &images(pipeline, &request)[0]);
            println!("{family} {file}: largest difference {difference} of 255");
            let allowed = if padding.is_some() { SCALED_TOLERANCE } else { TOLERANCE };
            assert!(difference <= allowed, "{family} {file}: differs by {difference} of 255");
        }
    }
}

/// Outside the mask every byte is the picture's own, whatever size the model works at; inside it is redrawn.
#[test]
fn what_is_not_marked_is_kept_to_the_bit() {
    let pipeline = pipeline("sd15", "model");
    let (image, mask) = (picture("sd15", "inpaints/init_96x80.png"), mask("sd15", "inpaints/mask_96x80.png"));
    for (padding, blur) in [(None, 0), (Some(8), 0), (None, 3), (Some(8), 3)] {
        let mut request = repaint(image.clone(), InitMask { mask: mask.clone(), blur, padding }, 0.8);
        if padding.is_some() {
            (request.width, request.height) = (Some(64), Some(64));
        }
        let result = images(&pipeline, &request).remove(0);
        assert_eq!(result.dimensions(), image.dimensions());
        let (mut kept, mut redrawn) = (0, 0);
        for (x, y, pixel) in result.enumerate_pixels() {
            let near = |margin: u32| {
                let at = |x: i64, y: i64| {
                    let inside = (0..96).contains(&x) && (0..80).contains(&y);
                    inside && mask.get_pixel(x as u32, y as u32).0[0] > 0
                };
                let margin = i64::from(margin);
                (-margin..=margin)
                    .any(|dx| (-margin..=margin).any(|dy| at(i64::from(x) + dx, i64::from(y) + dy)))
            };
            // A blurred edge reaches at most a few deviations out.
            if !near(5 * blur) {
                assert_eq!(pixel, image.get_pixel(x, y), "{x}, {y} with padding {padding:?} and blur {blur}");
                kept += 1;
            } else if pixel != image.get_pixel(x, y) {
                redrawn += 1;
            }
        }
        assert!(kept > 1000 && redrawn > 100, "{kept} kept, {redrawn} redrawn");
    }
}

#[test]
fn an_image_of_several_is_the_image_of_its_own_seed() {
    let (_folder, own) = inpainting_model("StableDiffusionInpaintPipeline");
    for pipeline in [pipeline("sd15", "model"), own] {
        let (image, mask) =
            (picture("sd15", "inpaints/init_64x64.png"), mask("sd15", "inpaints/mask_64x64.png"));
        let request = GenerationRequest {
            num_images: 2,
            sampler: Some("euler_a".parse().unwrap()),
            ..repaint(image, InitMask { mask, ..InitMask::default() }, 0.8)
        };
        each_is_the_image_of_its_own_seed(&pipeline, &request);
    }
}

#[test]
fn a_model_made_for_inpainting_wants_a_mask() {
    let (_folder, pipeline) = inpainting_model("StableDiffusionPipeline");
    assert!(pipeline.info().inpainting);
    let error = pipeline.begin(&GenerationRequest::new("a circle")).err().unwrap().to_string();
    assert!(error.contains("mask"), "{error}");
}

#[test]
fn a_mask_of_another_size_is_refused() {
    let pipeline = pipeline("sd15", "model");
    let mask = InitMask { mask: GrayImage::new(32, 64), ..InitMask::default() };
    let error = pipeline.begin(&repaint(RgbImage::new(64, 64), mask, 0.5)).err().unwrap().to_string();
    assert!(error.contains("32x64") && error.contains("64x64"), "{error}");
}
