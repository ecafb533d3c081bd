//! A refiner that takes over from SDXL, and alone, against the pictures of diffusers' two pipelines
//! (`fixtures/refiner/refiner.json`, made by `tools/reference`); when it takes over, and what is refused.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::path::Path;

use image::RgbImage;
use sd_inference::{
    GenerationRequest, Hires, InitImage, InitMask, LoadOptions, MemoryLimit, ModelSource, Pipeline, Refiner,
    Upscaler,
};
use serde_json::Value;

use support::{
    TOLERANCE, copy, each_is_the_image_of_its_own_seed, fixtures, images, largest_difference, pipeline,
    request,
};

fn source(family: &str) -> ModelSource {
    ModelSource::folder(fixtures(family).join("model")).unwrap()
}

/// The model of SDXL with `refiner` beside it.
fn with(refiner: ModelSource) -> sd_inference::Result<Pipeline> {
    Pipeline::load(&source("sdxl"), &LoadOptions { refiner: Some(refiner), ..LoadOptions::default() })
}

fn fixture(list: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(fixtures("refiner").join("refiner.json")).unwrap();
    let fixture: Value = serde_json::from_str(&text).unwrap();
    fixture[list].as_array().unwrap().clone()
}

/// The request of a run, with its picture and mask.
fn wanted(run: &Value) -> GenerationRequest {
    let open =
        |field: &str| run[field].as_str().map(|file| image::open(fixtures("refiner").join(file)).unwrap());
    let init = open("init").map(|picture| InitImage {
        image: picture.to_rgb8(),
        strength: run["strength"].as_f64().unwrap(),
        mask: open("mask").map(|mask| InitMask { mask: mask.to_luma8(), ..InitMask::default() }),
    });
    GenerationRequest { init, ..request(run) }
}

fn compare(run: &Value, found: &[RgbImage]) {
    let files = run["files"].as_array().unwrap();
    assert_eq!(found.len(), files.len());
    for (file, image) in files.iter().zip(found) {
        let expected = image::open(fixtures("refiner").join(file.as_str().unwrap())).unwrap().to_rgb8();
        let difference = largest_difference(&expected, image);
        println!("{file}: largest difference {difference} of 255");
        assert!(difference <= TOLERANCE, "{file}: differs by {difference} of 255");
    }
}

#[test]
fn the_refiner_takes_over_as_in_the_reference() {
    let pipeline = with(source("refiner")).unwrap();
    assert!(pipeline.info().refiner && !pipeline.info().refines);
    let runs = fixture("hand_overs");
    assert!(runs.len() > 10);
    for run in runs {
        let refiner = Some(Refiner { start: run["start"].as_f64().unwrap() });
        let request = GenerationRequest { refiner, ..wanted(&run) };
        let mut generation = pipeline.begin(&request).unwrap();
        let steps: u64 =
            run["steps_taken"].as_array().unwrap().iter().map(|steps| steps.as_u64().unwrap()).sum();
        let mut count = 0;
        while let Some(step) = generation.step().unwrap() {
            count += 1;
            assert_eq!(
                (step.index, step.total, generation.steps_taken()),
                (count, steps as usize, count),
                "{run}"
            );
        }
        assert_eq!(count as u64, steps, "{run}");
        let found: Vec<_> = generation.finish().unwrap().images.into_iter().map(|(image, _)| image).collect();
        compare(&run, &found);
    }
}

#[test]
fn the_refiner_alone_draws_from_pictures_as_in_the_reference() {
    let pipeline = pipeline("refiner", "model");
    assert!(pipeline.info().refines && !pipeline.info().refiner);
    let runs = fixture("alone");
    assert!(runs.iter().any(|run| run["mask"].is_string()));
    for run in runs {
        compare(&run, &images(&pipeline, &wanted(&run)));
    }
    let error = pipeline.begin(&GenerationRequest::new("a circle")).err().unwrap().to_string();
    assert!(error.contains("init") && error.contains("refines"), "{error}");
}

/// A request for a small picture that the refiner takes over at `start`.
fn handed(start: f64) -> GenerationRequest {
    GenerationRequest {
        width: Some(40),
        height: Some(48),
        steps: Some(5),
        refiner: Some(Refiner { start }),
        ..GenerationRequest::new("a red circle on green grass")
    }
}

/// Whether the refiner is asked at all is a matter of the noise that is left: leading timesteps of five steps are 801, 601,
/// 401, 201 and 1.
#[test]
fn the_refiner_takes_the_steps_below_its_share() {
    let pipeline = with(source("refiner")).unwrap();
    let picture = |start| images(&pipeline, &handed(start)).remove(0);
    let without = images(&pipeline, &GenerationRequest { refiner: None, ..handed(0.5) }).remove(0);
    assert_eq!(picture(0.41), picture(0.59));
    assert_ne!(picture(0.41), picture(0.39));
    assert_ne!(picture(0.97), without);
    let none = pipeline.begin(&handed(0.9999)).unwrap();
    assert!(none.notes().iter().any(|note| note.contains("does not take part")), "{:?}", none.notes());
    assert_eq!(picture(0.9999), without);
    // All steps: the first model only reads the prompt.
    assert!(largest_difference(&picture(0.01), &without) > 10);
}

#[test]
fn an_image_of_several_is_the_image_of_its_own_seed() {
    let pipeline = with(source("refiner")).unwrap();
    let sampler = Some("dpm2_a".parse().unwrap());
    each_is_the_image_of_its_own_seed(
        &pipeline,
        &GenerationRequest { num_images: 2, sampler, ..handed(0.5) },
    );
}

/// A model that takes over from itself changes nothing, to the byte, with a sampler that remembers no step.
#[test]
fn a_model_that_refines_itself_draws_what_it_draws_alone() {
    for family in ["sd15", "sdxl"] {
        let options = LoadOptions { refiner: Some(source(family)), ..LoadOptions::default() };
        let pipeline = Pipeline::load(&source(family), &options).unwrap();
        for sampler in ["euler_a", "ddim", "heun", "dpm2_a"] {
            let request = GenerationRequest { sampler: Some(sampler.parse().unwrap()), ..handed(0.55) };
            let alone = GenerationRequest { refiner: None, ..request.clone() };
            assert!(images(&pipeline, &request) == images(&pipeline, &alone), "{family} {sampler}");
        }
    }
}

/// Two generations in one forward pass, one of them already with the refiner: the bytes that each gets alone.
#[test]
fn generations_of_two_models_advance_together() {
    let pipeline = with(source("refiner")).unwrap();
    let requests = [handed(0.3), GenerationRequest { seed: 5, ..handed(0.7) }];
    let alone: Vec<_> = requests.iter().map(|request| images(&pipeline, request).remove(0)).collect();
    let [mut first, mut second] = requests.map(|request| pipeline.begin(&request).unwrap());
    loop {
        let steps = sd_inference::advance(&mut [&mut first, &mut second]);
        if steps.into_iter().all(|step| step.unwrap().is_none()) {
            break;
        }
    }
    let together = [first, second].map(|generation| generation.finish().unwrap().images.remove(0).0);
    assert!(together[0] == alone[0] && together[1] == alone[1]);
}

/// What a mask keeps, it keeps through the hand-over.
#[test]
fn the_kept_part_of_an_inpainting_stays_as_it_was() {
    let pipeline = with(source("refiner")).unwrap();
    let image = RgbImage::from_fn(40, 48, |x, y| image::Rgb([x as u8 * 6, y as u8 * 5, 90]));
    let mask = image::GrayImage::from_fn(40, 48, |x, _| image::Luma([if x < 16 { 255 } else { 0 }]));
    let mask = InitMask { mask, ..InitMask::default() };
    let init = Some(InitImage { image: image.clone(), strength: 1.0, mask: Some(mask) });
    let found = images(&pipeline, &GenerationRequest { init, ..handed(0.5) }).remove(0);
    let changed = |columns: std::ops::Range<u32>| {
        columns
            .flat_map(|x| (0..48).map(move |y| (x, y)))
            .any(|(x, y)| found.get_pixel(x, y) != image.get_pixel(x, y))
    };
    assert!(changed(0..16) && !changed(16..40));
}

#[test]
fn what_cannot_be_done_is_refused_by_field() {
    let pipeline = with(source("refiner")).unwrap();
    let hires = Some(Hires { scale: 2.0, upscaler: Upscaler::Latent, strength: 0.5, steps: None });
    for (field, request) in [
        ("refiner.start", handed(0.0)),
        ("refiner.start", handed(1.0)),
        ("refiner.start", handed(f64::NAN)),
        ("hires", GenerationRequest { hires, ..handed(0.5) }),
    ] {
        let error = pipeline.begin(&request).err().unwrap().to_string();
        assert!(error.contains("refiner") && error.contains(field), "{field}: {error}");
    }
    let error = support::pipeline("sdxl", "model").begin(&handed(0.5)).err().unwrap().to_string();
    assert!(error.contains("no refiner was loaded"), "{error}");

    let error = with(source("sd15")).err().unwrap().to_string();
    assert!(error.contains("sd15") && error.contains("family"), "{error}");
    // Any model of the family can refine, and one whose latents are others cannot.
    assert!(with(source("sdxl")).is_ok());
    let folder = tempfile::tempdir().unwrap();
    copy(&fixtures("refiner").join("model"), folder.path());
    edit(folder.path(), "vae/config.json", |config| config["scaling_factor"] = 0.5.into());
    let error = with(ModelSource::folder(folder.path()).unwrap()).err().unwrap().to_string();
    assert!(error.contains("latents") && error.contains("0.5"), "{error}");
    // Without its mark the refiner would be told sizes that it does not know.
    copy(&fixtures("refiner").join("model"), folder.path());
    edit(folder.path(), "model_index.json", |index| index["requires_aesthetics_score"] = false.into());
    let error = with(ModelSource::folder(folder.path()).unwrap()).err().unwrap().to_string();
    assert!(error.contains("requires_aesthetics_score"), "{error}");
}

fn edit(folder: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.join(file);
    let mut value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

/// Both models must fit, without the refiner's VAE.
#[test]
fn the_refiner_counts_in_the_memory() {
    let weights = |refiner| {
        let options = LoadOptions { refiner, ..LoadOptions::default() };
        Pipeline::estimate_memory(&source("sdxl"), &options).unwrap().weights
    };
    let alone = Pipeline::estimate_memory(&source("refiner"), &LoadOptions::default()).unwrap().weights;
    let (base, both) = (weights(None), weights(Some(source("refiner"))));
    assert!(both > base && both < base + alone, "{base} {alone} {both}");
    let memory = MemoryLimit::Bytes(base + alone / 4);
    let options = LoadOptions { refiner: Some(source("refiner")), memory, ..LoadOptions::default() };
    let error = Pipeline::load(&source("sdxl"), &options).err().unwrap().to_string();
    assert!(error.contains("sdxl") && error.contains("refiner"), "{error}");
}
