//! Previews by a tiny autoencoder that is loaded beside the model.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use candle_core::{DType, Device};
use sd_inference::schedulers::Sampler;
use sd_inference::{GenerationRequest, LoadOptions, ModelSource, Pipeline, PreviewMethod};
use sd_models::taesd::AutoencoderTiny;

fn fixtures(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures")).join(path)
}

fn load(family: &str, preview_vae: Option<PathBuf>) -> sd_inference::Result<Pipeline> {
    let source = ModelSource::folder(fixtures(family).join("model")).unwrap();
    Pipeline::load(&source, &LoadOptions { preview_vae, ..LoadOptions::default() })
}

fn request() -> GenerationRequest {
    // Its last step ends without noise, so that its clean sample is the result.
    let sampler = Some(Sampler::Euler);
    GenerationRequest { steps: Some(3), seed: 5, sampler, ..GenerationRequest::new("a red circle") }
}

/// After the last step what it means the picture to become is what the latents are: the preview is what the tiny
/// autoencoder makes of them.
#[test]
fn the_preview_is_what_the_tiny_autoencoder_makes_of_the_latents() {
    let path = fixtures("taesd/model");
    let pipeline = load("sd15", Some(path.clone())).unwrap();
    assert!(pipeline.info().preview_vae);
    let mut generation = pipeline.begin(&request()).unwrap();
    assert_eq!(generation.preview(PreviewMethod::Taesd).unwrap(), None, "before the first step");
    let mut previews = Vec::new();
    while generation.step().unwrap().is_some() {
        previews.push(generation.preview(PreviewMethod::Taesd).unwrap().unwrap());
    }
    let (width, height) = generation.size();
    assert!(previews.iter().all(|preview| preview.dimensions() == (width as u32, height as u32)));
    assert_ne!(previews[0], previews[1], "every step is another picture");

    let tiny = AutoencoderTiny::open(&path, &Device::Cpu, DType::F32).unwrap();
    let pixels = tiny.decode(generation.latents()).unwrap();
    let pixels = pixels.squeeze(0).unwrap().permute((1, 2, 0)).unwrap().flatten_all().unwrap();
    for (found, expected) in previews[2].as_raw().iter().zip(pixels.to_vec1::<f32>().unwrap()) {
        let expected = (expected / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0;
        assert!((f32::from(*found) - expected).abs() <= 1.0, "{found} instead of {expected}");
    }
}

#[test]
fn without_one_there_is_no_such_preview_and_one_for_other_latents_is_refused() {
    let mut generation = load("sd15", None).unwrap().begin(&request()).unwrap();
    generation.step().unwrap();
    assert_eq!(generation.preview(PreviewMethod::Taesd).unwrap(), None);

    let error = load("sd21", Some(fixtures("taesd/model"))).err().unwrap().to_string();
    assert!(error.contains("taesd/model") && error.contains("4 and 4"), "{error}");
    let error = load("sd15", Some(fixtures("taesd/none"))).err().unwrap().to_string();
    assert!(error.contains("taesd/none"), "{error}");
}
