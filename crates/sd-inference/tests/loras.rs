//! Whole pictures with adapters against those of diffusers, and the laws of applying them.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use candle_core::{DType, Device};
use image::RgbImage;
use sd_inference::{
    AppliedLora, Error, GenerationRequest, LoadOptions, Lora, MemoryLimit, ModelSource, Pipeline, advance,
};
use serde_json::Value;
use support::{FAMILIES, TOLERANCE, fixtures, images, largest_difference, pipeline, request};

fn lora(family: &str, name: &str, scale: f64) -> AppliedLora {
    let path = fixtures(family).join(format!("loras/{name}.safetensors"));
    AppliedLora { lora: Lora::open(path).unwrap(), scale }
}

fn base() -> GenerationRequest {
    GenerationRequest {
        steps: Some(3),
        sampler: Some("euler".parse().unwrap()),
        ..GenerationRequest::new("a red circle")
    }
}

fn with(loras: &[AppliedLora]) -> GenerationRequest {
    GenerationRequest { loras: loras.to_vec(), ..base() }
}

fn picture(pipeline: &Pipeline, loras: &[AppliedLora]) -> RgbImage {
    images(pipeline, &with(loras)).remove(0)
}

#[test]
fn pictures_with_adapters_are_those_of_the_reference() {
    for family in FAMILIES {
        let pipeline = pipeline(family, "model");
        let text = std::fs::read_to_string(fixtures(family).join("loras.json")).unwrap();
        let notes: Value = serde_json::from_str(&text).unwrap();
        let mut compared = 0;
        for case in notes["cases"].as_array().unwrap() {
            let Some(run) = case.get("run") else { continue };
            let stack = case["stack"].as_array().unwrap();
            let stack = stack
                .iter()
                .map(|entry| lora(family, entry["file"].as_str().unwrap(), entry["scale"].as_f64().unwrap()));
            let request = GenerationRequest { loras: stack.collect(), ..request(run) };
            let found = images(&pipeline, &request).remove(0);
            let expected = fixtures(family).join(run["files"][0].as_str().unwrap());
            let difference = largest_difference(&found, &image::open(expected).unwrap().to_rgb8());
            println!("{family} {}: {difference} of 255", case["name"]);
            assert!(difference <= TOLERANCE, "{family} {}: {difference} of 255", case["name"]);
            compared += 1;
        }
        assert!(compared > 0, "{family}: no pictures to compare");
    }
}

/// Apply, apply another, remove: the bytes are those of before. Also with weights in bf16.
#[test]
fn removed_adapters_leave_no_trace() {
    for dtype in [DType::F32, DType::BF16] {
        let source = ModelSource::folder(fixtures("sd15").join("model")).unwrap();
        let pipeline = Pipeline::load(&source, &LoadOptions { dtype, ..LoadOptions::default() }).unwrap();
        let stack = [lora("sd15", "kohya", 1.0), lora("sd15", "locon", -0.5)];
        let plain = picture(&pipeline, &[]);
        let first = picture(&pipeline, &stack[..1]);
        let both = picture(&pipeline, &stack);
        assert!(largest_difference(&plain, &first) > 10 && largest_difference(&first, &both) > 10);
        assert_eq!(picture(&pipeline, &stack[..1]), first);
        assert_eq!(picture(&pipeline, &[]), plain, "{dtype:?}: removed adapters left something behind");
        assert_eq!(picture(&pipeline, &stack), both);
    }
}

#[test]
fn a_scale_of_zero_is_no_adapter() {
    let pipeline = pipeline("sd15", "model");
    let plain = picture(&pipeline, &[]);
    assert_eq!(picture(&pipeline, &[lora("sd15", "kohya", 0.0)]), plain);
    let stack = [lora("sd15", "kohya", -0.0), lora("sd15", "locon", 0.5)];
    let alone = picture(&pipeline, &stack[1..]);
    assert_eq!(picture(&pipeline, &stack), alone);
}

/// Each has its own set; they take turns, or are advanced together.
#[test]
fn generations_with_different_adapters_do_not_disturb_each_other() {
    let pipeline = pipeline("sd15", "model");
    let sets = [vec![], vec![lora("sd15", "kohya", 1.0)], vec![lora("sd15", "peft", 0.7)], vec![]];
    let alone: Vec<_> = sets.iter().map(|set| picture(&pipeline, set)).collect();
    for together in [false, true] {
        let mut generations: Vec<_> = sets.iter().map(|set| pipeline.begin(&with(set)).unwrap()).collect();
        for _ in 0..3 {
            let mut generations: Vec<_> = generations.iter_mut().collect();
            match together {
                true => {
                    advance(&mut generations).into_iter().for_each(|step| assert!(step.unwrap().is_some()))
                }
                false => generations
                    .iter_mut()
                    .for_each(|generation| assert!(generation.step().unwrap().is_some())),
            }
        }
        for (generation, alone) in generations.into_iter().zip(&alone) {
            assert_eq!(&generation.finish().unwrap().images.remove(0).0, alone, "together: {together}");
        }
    }
}

#[test]
fn threads_with_different_adapters_share_a_pipeline() {
    let pipeline = Arc::new(pipeline("sd15", "model"));
    let sets = [vec![], vec![lora("sd15", "kohya", 1.0)], vec![lora("sd15", "locon", 1.0)]];
    let alone: Vec<_> = sets.iter().map(|set| picture(&pipeline, set)).collect();
    std::thread::scope(|scope| {
        for (set, alone) in sets.iter().zip(&alone) {
            let pipeline = &pipeline;
            scope.spawn(move || {
                for _ in 0..2 {
                    assert_eq!(&picture(pipeline, set), alone);
                }
            });
        }
    });
}

#[test]
fn adapters_of_another_model_are_refused_and_change_nothing() {
    let pipeline = pipeline("sd15", "model");
    let plain = picture(&pipeline, &[]);
    let wrong = lora("sdxl", "diffusers", 1.0);
    assert!(pipeline.check_lora(&wrong.lora).is_err());
    assert!(pipeline.check_lora(&lora("sd15", "kohya", 1.0).lora).is_ok());
    let error = pipeline.begin(&with(&[lora("sd15", "kohya", 1.0), wrong])).err().unwrap();
    assert!(matches!(error, Error::Model(_)), "{error}");
    for scale in [f64::NAN, f64::INFINITY] {
        let error = pipeline.begin(&with(&[lora("sd15", "kohya", scale)])).err().unwrap();
        assert!(matches!(error, Error::InvalidRequest { field: "loras", .. }), "{error}");
    }
    assert_eq!(picture(&pipeline, &[]), plain);
}

/// Both forms of the layers are there while a generation still has the old ones, and only then.
#[test]
fn memory_for_two_sets_at_once_is_asked_for() {
    let source = ModelSource::folder(fixtures("sd15").join("model")).unwrap();
    let small = LoadOptions { width: Some(16), height: Some(16), ..LoadOptions::default() };
    let estimate = Pipeline::estimate_memory(&source, &small).unwrap();
    // Room for the work on a small picture beside the model, and hardly more.
    let memory = MemoryLimit::Bytes(estimate.total() + 1024);
    let pipeline = Pipeline::load(&source, &LoadOptions { memory, ..small }).unwrap();
    let begin =
        |loras| pipeline.begin(&GenerationRequest { width: Some(16), height: Some(16), ..with(loras) });
    let kohya = [lora("sd15", "kohya", 1.0)];

    let running = begin(&[]).unwrap();
    let error = begin(&kohya).err().unwrap();
    assert!(matches!(error, Error::NotEnoughMemory { .. }), "{error}");
    drop(running);
    begin(&kohya).unwrap();
}

/// A change that breaks off leaves a pipeline that still works.
#[test]
fn a_model_whose_files_change_meanwhile_is_not_mixed() {
    let folder = tempfile::tempdir().unwrap();
    copy(&fixtures("sd15").join("model"), folder.path());
    let source = ModelSource::folder(folder.path()).unwrap();
    let options = LoadOptions { device: Device::Cpu, ..LoadOptions::default() };
    let pipeline = Pipeline::load(&source, &options).unwrap();
    let plain = picture(&pipeline, &[]);
    let weights = folder.path().join("unet/diffusion_pytorch_model.safetensors");
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    std::fs::File::options().append(true).open(&weights).unwrap().set_modified(later).unwrap();
    let error = pipeline.begin(&with(&[lora("sd15", "locon", 1.0)])).err().unwrap().to_string();
    assert!(error.contains("changed since"), "{error}");
    // The next request loads the model as it is now.
    assert_eq!(picture(&pipeline, &[]), plain);
    assert_ne!(picture(&pipeline, &[lora("sd15", "locon", 1.0)]), plain);
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => std::fs::write(&target, std::fs::read(&path).unwrap()).unwrap(),
        }
    }
}
