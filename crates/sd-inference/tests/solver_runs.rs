//! Whole runs with further samplers and the options of guidance, against the pictures that diffusers made
//! (`fixtures/<family>/solver_runs.json`, made by `tools/reference`).

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use sd_inference::{GenerationRequest, GuidanceInterval, InitImage, LoadOptions, ModelSource, Pipeline};

use support::{FAMILIES, TOLERANCE, fixtures, images, largest_difference, pipeline, request, runs};

/// The family's model with more in its scheduler's configuration.
fn with_scheduler(family: &str, kwargs: &serde_json::Map<String, serde_json::Value>) -> Pipeline {
    let folder = tempfile::tempdir().unwrap();
    support::copy(&fixtures(family).join("model"), folder.path());
    let path = folder.path().join("scheduler/scheduler_config.json");
    let mut config: serde_json::Map<_, _> =
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config.extend(kwargs.clone());
    std::fs::write(path, serde_json::to_string(&config).unwrap()).unwrap();
    let source = ModelSource::folder(folder.path()).unwrap();
    Pipeline::load(&source, &LoadOptions::default()).unwrap()
}

/// The tiny model as one that was distilled with guidance.
fn distilled() -> Pipeline {
    let (folder, own) = (tempfile::tempdir().unwrap(), fixtures("sd15"));
    support::copy(&own.join("model"), folder.path());
    let read = |path: std::path::PathBuf| std::fs::read(path).unwrap();
    let projection = read(own.join("solver_runs/cond_proj.safetensors"));
    let projection = safetensors::SafeTensors::deserialize(&projection).unwrap();
    let path = folder.path().join("unet/diffusion_pytorch_model.safetensors");
    let bytes = read(path.clone());
    let unet = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensors = unet.tensors().into_iter().chain(projection.tensors());
    safetensors::serialize_to_file(tensors, None, &path).unwrap();

    let width = projection.tensors()[0].1.shape()[1];
    let path = folder.path().join("unet/config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let with = text.replace("\"time_cond_proj_dim\": null", &format!("\"time_cond_proj_dim\": {width}"));
    assert_ne!(text, with);
    std::fs::write(path, with).unwrap();
    let path = folder.path().join("model_index.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replace("\"StableDiffusionPipeline\"", "\"LatentConsistencyModelPipeline\"");
    std::fs::write(path, text).unwrap();
    let source = ModelSource::folder(folder.path()).unwrap();
    Pipeline::load(&source, &LoadOptions::default()).unwrap()
}

#[test]
fn the_same_seed_gives_the_reference_picture() {
    for family in FAMILIES {
        let plain = pipeline(family, "model");
        for run in runs(family, "solver_runs.json") {
            let kwargs = run["kwargs"].as_object().unwrap();
            let changed = match run["model"].as_str() {
                Some("lcm") => Some(distilled()),
                _ => (!kwargs.is_empty()).then(|| with_scheduler(family, kwargs)),
            };
            let interval = run["guidance_interval"].as_array().map(|bounds| GuidanceInterval {
                start: bounds[0].as_f64().unwrap(),
                end: bounds[1].as_f64().unwrap(),
            });
            let init = run["strength"].as_f64().map(|strength| InitImage {
                image: image::open(fixtures(family).join(run["init"].as_str().unwrap())).unwrap().to_rgb8(),
                strength,
                mask: None,
            });
            let request = GenerationRequest {
                guidance_rescale: run["guidance_rescale"].as_f64().unwrap(),
                guidance_interval: interval,
                init,
                ..request(&run)
            };
            let pipeline = changed.as_ref().unwrap_or(&plain);
            let generation = pipeline.begin(&request).unwrap();
            assert_eq!(generation.total_steps() as u64, run["evaluations"].as_u64().unwrap());

            let files = run["files"].as_array().unwrap();
            let found = images(pipeline, &request);
            assert_eq!(found.len(), files.len());
            for (file, image) in files.iter().zip(&found) {
                let file = file.as_str().unwrap();
                let expected = image::open(fixtures(family).join(file)).unwrap().to_rgb8();
                let difference = largest_difference(&expected, image);
                println!("{family} {file}: largest difference {difference} of 255");
                assert!(difference <= TOLERANCE, "{family} {file}: differs by {difference} of 255");
            }
        }
    }
}

/// SD 1.5's own scheduler: a request that names no sampler runs it.
#[test]
fn a_model_of_pndm_runs_pndm() {
    let pipeline = pipeline("sd15", "model");
    assert!(pipeline.info().notes.is_empty(), "{:?}", pipeline.info().notes);
    let request = GenerationRequest { steps: Some(5), ..GenerationRequest::new("a red circle") };
    let named = GenerationRequest { sampler: Some("pndm".parse().unwrap()), ..request.clone() };
    assert_eq!(images(&pipeline, &request), images(&pipeline, &named));
    assert_eq!(pipeline.begin(&request).unwrap().total_steps(), 6);
}

/// The scale reaches a distilled model as a condition, in one evaluation of one sample.
#[test]
fn a_distilled_model_heeds_the_scale_and_no_negative_prompt() {
    let pipeline = distilled();
    let info = pipeline.info();
    assert!(info.guidance_embedding && (info.default_steps, info.default_guidance_scale) == (4, 8.5));
    let base =
        GenerationRequest { sampler: Some("lcm".parse().unwrap()), ..GenerationRequest::new("a star") };
    let picture = images(&pipeline, &base);
    for scale in [1.0, 3.0] {
        let other = GenerationRequest { guidance_scale: Some(scale), ..base.clone() };
        assert!(largest_difference(&picture[0], &images(&pipeline, &other)[0]) > 2, "{scale}");
    }
    let negative = GenerationRequest { negative_prompt: Some("blurry".into()), ..base };
    assert_eq!(images(&pipeline, &negative), picture);
}

/// Everything that the interval leaves out is computed without guidance: with nothing left in it, the picture is the one
/// of guidance 1.
#[test]
fn an_interval_without_a_step_is_no_guidance() {
    for family in FAMILIES {
        let pipeline = pipeline(family, "model");
        let base = GenerationRequest { steps: Some(3), ..GenerationRequest::new("a red circle") };
        let interval = Some(GuidanceInterval { start: 0.0, end: 0.1 });
        let none = images(&pipeline, &GenerationRequest { guidance_interval: interval, ..base.clone() });
        let plain = images(&pipeline, &GenerationRequest { guidance_scale: Some(1.0), ..base.clone() });
        assert_eq!(none, plain, "{family}");
        assert_ne!(plain, images(&pipeline, &base), "{family}");
    }
}
