//! Whole runs against the pictures that diffusers made from the same tiny weights, prompts and seeds
//! (`fixtures/<family>/runs.json`, made by `tools/reference`), and the laws of the stepper.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use sd_inference::{Error, GenerationRequest, LoadOptions, ModelSource, Pipeline};

use support::{
    FAMILIES, TOLERANCE, copy, each_is_the_image_of_its_own_seed, fixtures, images, largest_difference,
    pipeline, request, runs,
};

fn check_against_reference(family: &str, folder: &str) {
    let pipeline = pipeline(family, folder);
    let runs = runs(family, "runs.json");
    assert!(runs.len() >= 3, "{family}: too few runs to mean anything");
    for run in runs {
        let files = run["files"].as_array().unwrap();
        let found = images(&pipeline, &request(&run));
        assert_eq!(found.len(), files.len());
        for (file, image) in files.iter().zip(&found) {
            let file = file.as_str().unwrap();
            let expected = image::open(fixtures(family).join(file)).unwrap().to_rgb8();
            let difference = largest_difference(&expected, image);
            println!("{family}/{folder} {file}: largest difference {difference} of 255");
            assert!(difference <= TOLERANCE, "{family}/{folder} {file}: differs by {difference} of 255");
        }
    }
}

#[test]
fn the_same_seed_gives_the_reference_picture_sd15() {
    check_against_reference("sd15", "model");
}

#[test]
fn the_same_seed_gives_the_reference_picture_sd15_from_fp16_files() {
    check_against_reference("sd15", "model-fp16");
}

#[test]
fn the_same_seed_gives_the_reference_picture_sd21() {
    check_against_reference("sd21", "model");
}

#[test]
fn the_same_seed_gives_the_reference_picture_sdxl() {
    check_against_reference("sdxl", "model");
}

/// The demonstration model is an ordinary diffusers folder: both draw the same with it.
#[test]
fn the_demonstration_model_draws_what_diffusers_draws_with_it() {
    check_against_reference("demo", "../../models/demo");
}

/// Sampler state and noise belong to the generation: two that take turns give the bytes that each gives alone.
#[test]
fn generations_that_take_turns_do_not_disturb_each_other() {
    for family in FAMILIES {
        let pipeline = pipeline(family, "model");
        let first = GenerationRequest {
            sampler: Some("euler_a".parse().unwrap()),
            steps: Some(4),
            seed: 1,
            ..GenerationRequest::new("a red circle on green grass")
        };
        let second = GenerationRequest {
            sampler: Some("dpmpp_2m".parse().unwrap()),
            steps: Some(6),
            seed: 2,
            ..GenerationRequest::new("a blue square on sand")
        };
        let alone = (images(&pipeline, &first), images(&pipeline, &second));

        let mut a = pipeline.begin(&first).unwrap();
        let mut b = pipeline.begin(&second).unwrap();
        loop {
            let (more_a, more_b) = (a.step().unwrap().is_some(), b.step().unwrap().is_some());
            if !more_a && !more_b {
                break;
            }
        }
        assert_eq!(a.finish().unwrap().images[0].0, alone.0[0], "{family}");
        assert_eq!(b.finish().unwrap().images[0].0, alone.1[0], "{family}");
    }
}

/// Image k of a request is, to the byte, the image that seed + k gives alone.
#[test]
fn an_image_of_several_is_the_image_of_its_own_seed() {
    for family in FAMILIES {
        let pipeline = pipeline(family, "model");
        let request = GenerationRequest {
            steps: Some(3),
            seed: u64::MAX,
            num_images: 3,
            sampler: Some("euler_a".parse().unwrap()),
            ..GenerationRequest::new("a star")
        };
        each_is_the_image_of_its_own_seed(&pipeline, &request);
    }
}

#[test]
fn prompt_seed_and_guidance_matter() {
    let pipeline = pipeline("sd15", "model");
    let base = GenerationRequest { steps: Some(3), ..GenerationRequest::new("a red circle") };
    let picture = images(&pipeline, &base).remove(0);
    for other in [
        GenerationRequest { prompt: "a blue square".into(), ..base.clone() },
        GenerationRequest { seed: 1, ..base.clone() },
        GenerationRequest { guidance_scale: Some(2.0), ..base.clone() },
        GenerationRequest { negative_prompt: Some("blurry".into()), ..base.clone() },
        GenerationRequest { clip_skip: 1, ..base.clone() },
        GenerationRequest { rng: "philox".parse().unwrap(), ..base.clone() },
    ] {
        let changed = images(&pipeline, &other).remove(0);
        assert!(largest_difference(&picture, &changed) > 5, "no effect: {other:?}");
    }
    assert_eq!(images(&pipeline, &base).remove(0), picture, "the same request gave another picture");
}

#[test]
fn a_pipeline_is_shared_between_threads() {
    fn check<T: Send + Sync + Clone + 'static>(_: &T) {}
    let pipeline = pipeline("sd15", "model");
    check(&pipeline);
    let request = GenerationRequest { steps: Some(2), ..GenerationRequest::new("a circle") };
    let expected = images(&pipeline, &request);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert_eq!(images(&pipeline, &request), expected));
        }
    });
}

#[test]
fn what_the_model_cannot_do_is_refused_by_field_before_anything_is_computed() {
    let pipeline = pipeline("sd15", "model");
    let base = GenerationRequest::new("a circle");
    for (field, request) in [
        ("width", GenerationRequest { width: Some(513), ..base.clone() }),
        ("height", GenerationRequest { height: Some(0), ..base.clone() }),
        ("guidance_scale", GenerationRequest { guidance_scale: Some(f64::NAN), ..base.clone() }),
        ("num_images", GenerationRequest { num_images: 0, ..base.clone() }),
        ("clip_skip", GenerationRequest { clip_skip: 99, ..base.clone() }),
        ("steps", GenerationRequest { steps: Some(0), ..base.clone() }),
        ("steps", GenerationRequest { steps: Some(100_000), ..base.clone() }),
    ] {
        let error = pipeline.begin(&request).err().unwrap_or_else(|| panic!("accepted: {request:?}"));
        assert!(error.to_string().contains(field), "{field}: {error}");
        assert!(matches!(error, Error::InvalidRequest { .. } | Error::Scheduler(_)));
    }
}

/// A model is known by its own files: with the scheduler of SDXL Turbo it takes few steps without guidance by itself.
#[test]
fn a_model_for_few_steps_has_defaults_of_its_own() {
    let usual = pipeline("sdxl", "model");
    assert_eq!((usual.info().default_steps, usual.info().default_guidance_scale), (20, 7.5));
    let folder = tempfile::tempdir().unwrap();
    copy(&fixtures("sdxl").join("model"), folder.path());
    let turbo = r#"{"_class_name": "EulerAncestralDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "prediction_type": "epsilon", "timestep_spacing": "trailing"}"#;
    std::fs::write(folder.path().join("scheduler/scheduler_config.json"), turbo).unwrap();
    let source = ModelSource::folder(folder.path()).unwrap();
    let pipeline = Pipeline::load(&source, &LoadOptions::default()).unwrap();
    assert_eq!((pipeline.info().default_steps, pipeline.info().default_guidance_scale), (4, 1.0));
    assert!(pipeline.info().notes.iter().any(|note| note.contains("few steps")));
    let generation = pipeline.begin(&GenerationRequest::new("a red circle")).unwrap();
    assert_eq!((generation.total_steps(), generation.sampler().name()), (4, "euler_a"));
}
