//! A tiny autoencoder: for previews beside the model's VAE, and in its place.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use sd_inference::schedulers::Sampler;
use sd_inference::{
    GenerationRequest, Hires, InitImage, LoadOptions, ModelFiles, ModelSource, Pipeline, PreviewMethod,
    Seamless, Upscaler,
};
use sd_models::taesd::AutoencoderTiny;
use support::{TOLERANCE, images, largest_difference, runs};

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

/// In the place of the VAE it gives the pictures of diffusers with an AutoencoderTiny as the pipeline's vae, from noise and
/// from a picture, by the folder and by the two files of the original naming.
#[test]
fn in_the_place_of_the_vae_it_gives_the_reference_pictures() {
    let mut seen = 0;
    for run in runs("taesd", "runs.json") {
        let family = run["family"].as_str().unwrap();
        let files = ModelFiles::folder(fixtures(family).join("model")).unwrap();
        let files = files.with_vae(fixtures("taesd/model")).unwrap();
        let pipeline = Pipeline::load(&ModelSource::Files(files), &LoadOptions::default()).unwrap();
        assert!(pipeline.info().tiny_vae && pipeline.info().encodes && pipeline.info().latent_rgb.is_some());
        let init = run["init"].as_str().map(|file| InitImage {
            image: image::open(fixtures("taesd").join(file)).unwrap().to_rgb8(),
            strength: run["strength"].as_f64().unwrap(),
            mask: None,
        });
        let found = images(&pipeline, &GenerationRequest { init, ..support::request(&run) });
        for (file, image) in run["files"].as_array().unwrap().iter().zip(&found) {
            let file = file.as_str().unwrap();
            let expected = image::open(fixtures("taesd").join(file)).unwrap().to_rgb8();
            let difference = largest_difference(&expected, image);
            println!("{file}: largest difference {difference} of 255");
            assert!(difference <= TOLERANCE, "{file}: differs by {difference} of 255");
            seen += 1;
        }
    }
    assert_eq!(seen, 12);
}

/// The file of the original naming that holds a decoder alone draws the same and cannot begin with a picture.
#[test]
fn a_decoder_alone_decodes() {
    let load = |vae: &str| {
        let files = ModelFiles::folder(fixtures("sd15/model")).unwrap().with_vae(fixtures(vae)).unwrap();
        Pipeline::load(&ModelSource::Files(files), &LoadOptions::default()).unwrap()
    };
    let (whole, decoder) = (load("taesd/model"), load("taesd/original/taesd_decoder.safetensors"));
    assert_eq!(images(&whole, &request()), images(&decoder, &request()));
    assert!(!decoder.info().encodes);
    let init = Some(InitImage { image: image::RgbImage::new(64, 64), strength: 0.5, mask: None });
    let hires = Some(Hires { scale: 1.5, upscaler: Upscaler::Lanczos, strength: 0.5, steps: None });
    for request in [GenerationRequest { init, ..request() }, GenerationRequest { hires, ..request() }] {
        let error = decoder.begin(&request).err().unwrap().to_string();
        assert!(error.contains("only decodes"), "{error}");
        assert_eq!(images(&whole, &request).len(), 1);
    }
    // The model's own VAE need not be loaded.
    let own = ModelSource::folder(fixtures("sd15/model")).unwrap();
    let tiny = ModelFiles::folder(fixtures("sd15/model")).unwrap().with_vae(fixtures("taesd/model")).unwrap();
    let weights =
        |source: &ModelSource| Pipeline::estimate_memory(source, &LoadOptions::default()).unwrap().weights;
    assert!(weights(&ModelSource::Files(tiny)) < weights(&own));
}

/// Shifted latents give the shifted picture, and its encoder goes on around the edges too.
#[test]
fn its_edges_meet_too() {
    let files =
        ModelFiles::folder(fixtures("sd15/model")).unwrap().with_vae(fixtures("taesd/model")).unwrap();
    let pipeline = Pipeline::load(&ModelSource::Files(files), &LoadOptions::default()).unwrap();
    let picture = |seamless| images(&pipeline, &GenerationRequest { seamless, ..request() }).remove(0);
    let (plain, seamless) = (picture(Seamless::default()), picture(Seamless { x: true, y: true }));
    assert_ne!(plain, seamless);

    let tiny = AutoencoderTiny::open(&fixtures("taesd/model"), &Device::Cpu, DType::F32).unwrap();
    let both = Seamless { x: true, y: true };
    let pixels = Tensor::rand(-1f32, 1.0, (1, 3, 48, 64), &Device::Cpu).unwrap();
    let shifted = |tensor: &Tensor, by: usize| tensor.roll(by as i32, 2).unwrap().roll(by as i32, 3).unwrap();
    let difference = |a: &Tensor, b: &Tensor| {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap()
    };
    let encoded = tiny.encode_with(&pixels, both).unwrap();
    let other = tiny.encode_with(&shifted(&pixels, 16), both).unwrap();
    assert!(difference(&shifted(&encoded, 2), &other) < 1e-4);
    assert!(difference(&tiny.encode(&pixels).unwrap(), &encoded) > 1e-3, "its edges make no difference");
    let decoded = tiny.decode_with(&encoded, both).unwrap();
    assert!(difference(&shifted(&decoded, 16), &tiny.decode_with(&other, both).unwrap()) < 1e-4);
}
