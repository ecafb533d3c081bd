//! Image-to-image against the pictures that diffusers made (`fixtures/<family>/transforms.json`, made by
//! `tools/reference`), and its laws.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use image::RgbImage;
use sd_inference::{GenerationRequest, InitImage};

use support::{
    FAMILIES, TOLERANCE, each_is_the_image_of_its_own_seed, fixtures, images, largest_difference, pipeline,
    request, runs,
};

fn picture(family: &str, file: &str) -> RgbImage {
    image::open(fixtures(family).join(file)).unwrap().to_rgb8()
}

fn from_picture(image: RgbImage, strength: f64) -> GenerationRequest {
    let (width, height) = image.dimensions();
    GenerationRequest {
        width: Some(width as usize),
        height: Some(height as usize),
        steps: Some(5),
        seed: 7,
        init: Some(InitImage { image, strength, mask: None }),
        ..GenerationRequest::new("a red circle on green grass")
    }
}

#[test]
fn the_same_seed_gives_the_reference_picture() {
    for family in FAMILIES {
        let pipeline = pipeline(family, "model");
        let runs = runs(family, "transforms.json");
        assert!(runs.len() >= 2, "{family}: too few runs to mean anything");
        for run in runs {
            let init = InitImage {
                image: picture(family, run["init"].as_str().unwrap()),
                strength: run["strength"].as_f64().unwrap(),
                mask: None,
            };
            let request = GenerationRequest { init: Some(init), ..request(&run) };
            let taken = pipeline.begin(&request).unwrap().total_steps();
            assert_eq!(taken as u64, run["steps_taken"].as_u64().unwrap(), "{family} {}", run["name"]);
            let found = images(&pipeline, &request);
            let files = run["files"].as_array().unwrap();
            assert_eq!(found.len(), files.len());
            for (file, image) in files.iter().zip(&found) {
                let file = file.as_str().unwrap();
                let difference = largest_difference(&picture(family, file), image);
                println!("{family} {file}: largest difference {difference} of 255");
                assert!(difference <= TOLERANCE, "{family} {file}: differs by {difference} of 255");
            }
        }
    }
}

/// At strength 0 no step is taken and nothing is random; prompt and seed do not matter.
#[test]
fn without_strength_the_picture_passes_through_the_vae() {
    for family in FAMILIES {
        let pipeline = pipeline(family, "model");
        let init = picture(family, runs(family, "transforms.json")[0]["init"].as_str().unwrap());
        let request = from_picture(init, 0.0);
        assert_eq!(pipeline.begin(&request).unwrap().total_steps(), 0);
        let once = images(&pipeline, &request);
        let other = GenerationRequest { prompt: "a blue star".into(), seed: 8, ..request };
        assert_eq!(images(&pipeline, &other), once, "{family}");
    }
}

/// The stronger, the less of the picture is left.
#[test]
fn strength_matters_and_so_does_the_picture() {
    let pipeline = pipeline("sd15", "model");
    let init = picture("sd15", "transforms/init_64x64.png");
    let inverted =
        RgbImage::from_fn(64, 64, |x, y| image::Rgb(init.get_pixel(x, y).0.map(|value| 255 - value)));
    let pictures: Vec<_> = [0.2, 0.6, 1.0]
        .map(|strength| images(&pipeline, &from_picture(init.clone(), strength)).remove(0))
        .into_iter()
        .collect();
    for pair in pictures.windows(2) {
        assert!(largest_difference(&pair[0], &pair[1]) > 10);
    }
    let of_inverted = images(&pipeline, &from_picture(inverted, 0.6)).remove(0);
    assert!(largest_difference(&of_inverted, &pictures[1]) > 10);
}

#[test]
fn an_image_of_several_is_the_image_of_its_own_seed() {
    let pipeline = pipeline("sd15", "model");
    let init = picture("sd15", "transforms/init_64x64.png");
    let request = GenerationRequest {
        num_images: 3,
        sampler: Some("euler_a".parse().unwrap()),
        ..from_picture(init, 0.6)
    };
    each_is_the_image_of_its_own_seed(&pipeline, &request);
}

/// A picture of another size is brought to the request's.
#[test]
fn a_picture_of_any_size_is_taken() {
    let pipeline = pipeline("sd15", "model");
    let init = picture("sd15", "transforms/init_88x56.png");
    let request = GenerationRequest { width: Some(40), height: Some(72), ..from_picture(init, 0.5) };
    assert_eq!(images(&pipeline, &request)[0].dimensions(), (40, 72));
}

#[test]
fn a_strength_that_is_none_is_refused() {
    let pipeline = pipeline("sd15", "model");
    for strength in [-0.5, 1.5, f64::NAN] {
        let error = pipeline.begin(&from_picture(RgbImage::new(64, 64), strength)).err().unwrap();
        assert!(error.to_string().contains("strength"), "{error}");
    }
}
