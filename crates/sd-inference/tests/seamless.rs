//! Pictures whose edges meet, against those that diffusers makes with circular padding (`fixtures/<family>/seamless.json`,
//! made by `tools/reference`), and their law.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use image::RgbImage;
use sd_inference::{GenerationRequest, InitImage, InitMask, Seamless};

use support::{FAMILIES, TOLERANCE, fixtures, images, largest_difference, pipeline, request, runs};

#[test]
fn the_same_seed_gives_the_reference_picture() {
    for family in FAMILIES {
        let pipeline = pipeline(family, "model");
        for run in runs(family, "seamless.json") {
            let axes: Vec<_> =
                run["tiling"].as_array().unwrap().iter().map(|axis| axis.as_str().unwrap()).collect();
            let seamless = Seamless { x: axes.contains(&"x"), y: axes.contains(&"y") };
            let found = images(&pipeline, &GenerationRequest { seamless, ..request(&run) });
            let file = run["files"][0].as_str().unwrap();
            let expected = image::open(fixtures(family).join(file)).unwrap().to_rgb8();
            let difference = largest_difference(&expected, &found[0]);
            println!("{family} {file}: largest difference {difference} of 255");
            assert!(difference <= TOLERANCE, "{family} {file}: differs by {difference} of 255");
        }
    }
}

/// The mean difference between neighbouring columns: across the seam, and inside the picture at the steepest tenth of its
/// columns. (The shape may lie across the seam: nothing tells a seamless picture where it begins.)
fn gradients(image: &RgbImage) -> (f64, f64) {
    let (width, height) = image.dimensions();
    let between = |left: u32, right: u32| {
        let row = |y: u32| {
            let (a, b) = (image.get_pixel(left, y).0, image.get_pixel(right, y).0);
            a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(b))).sum::<f64>()
        };
        (0..height).map(row).sum::<f64>() / f64::from(3 * height)
    };
    let mut inside: Vec<f64> = (1..width).map(|x| between(x - 1, x)).collect();
    inside.sort_by(|a, b| b.total_cmp(a));
    inside.truncate(inside.len() / 10);
    (between(width - 1, 0), inside.iter().sum::<f64>() / inside.len() as f64)
}

/// The seam's gradient is no larger than the picture's own; without seamless tiling it is.
#[test]
fn the_demonstration_model_draws_grounds_without_a_seam() {
    let pipeline = pipeline("demo", "../../models/demo");
    for ground in ["grass", "water", "sand", "stone", "brick", "lava"] {
        let (mut plain_seams, mut seams, mut insides) = (0.0, 0.0, 0.0);
        for (x, y) in [(true, false), (false, true), (true, true)] {
            let request = GenerationRequest {
                seed: 3,
                steps: Some(8),
                seamless: Seamless { x, y },
                ..GenerationRequest::new(format!("a red circle on {ground}"))
            };
            let turned = |image: &RgbImage| if x { image.clone() } else { image::imageops::rotate90(image) };
            let (seam, inside) = gradients(&turned(&images(&pipeline, &request)[0]));
            let plain = GenerationRequest { seamless: Seamless::default(), ..request };
            let (plain_seam, _) = gradients(&turned(&images(&pipeline, &plain)[0]));
            println!(
                "{ground}, x {x}, y {y}: seam {seam:.1}, inside {inside:.1}; plain seam {plain_seam:.1}"
            );
            (plain_seams, seams, insides) = (plain_seams + plain_seam, seams + seam, insides + inside);
        }
        assert!(seams <= insides, "{ground}: seams {seams:.1}, inside {insides:.1}");
        assert!(plain_seams > 1.2 * seams, "{ground}: without tiling {plain_seams:.1}, with {seams:.1}");
    }
}

/// Image-to-image and inpainting tile as well; what is kept is still kept.
#[test]
fn every_mode_tiles() {
    let pipeline = pipeline("sd15", "model");
    let image = RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8 * 3, y as u8 * 3, 90]));
    let mask = image::GrayImage::from_fn(64, 64, |x, _| image::Luma([if x < 32 { 255 } else { 0 }]));
    let mask = InitMask { mask, blur: 0, padding: None };
    for mask in [None, Some(mask)] {
        let request = GenerationRequest {
            steps: Some(3),
            width: Some(64),
            height: Some(64),
            init: Some(InitImage { image: image.clone(), strength: 0.7, mask: mask.clone() }),
            ..GenerationRequest::new("a circle")
        };
        let plain = images(&pipeline, &request).remove(0);
        let seamless = Seamless { x: true, y: true };
        let tiled = images(&pipeline, &GenerationRequest { seamless, ..request }).remove(0);
        assert!(largest_difference(&plain, &tiled) > 5, "no effect");
        if mask.is_some() {
            assert!((32..64).all(|x| (0..64).all(|y| tiled.get_pixel(x, y) == image.get_pixel(x, y))));
        }
    }
}
