//! Previews that are decoded elsewhere than the steps are taken.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use candle_core::Device;
use image::RgbImage;
use sd_inference::schedulers::Sampler;
use sd_inference::{
    Background, Error, GenerationRequest, LoadOptions, MemoryLimit, ModelFiles, ModelSource, PendingPreview,
    Pipeline, PreviewMethod, RandomModel,
};
use sd_models::taesd::AutoencoderTiny;
use support::images;

fn path(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(path)
}

fn options() -> LoadOptions {
    LoadOptions { preview_vae: Some(path("fixtures/taesd/model")), ..LoadOptions::default() }
}

fn sd15() -> ModelSource {
    ModelSource::folder(path("fixtures/sd15/model")).unwrap()
}

fn request() -> GenerationRequest {
    let sampler = Some(Sampler::Euler);
    GenerationRequest { steps: Some(4), seed: 5, sampler, ..GenerationRequest::new("a red circle") }
}

/// Whatever threads decode it, and whenever.
#[test]
fn what_another_thread_decodes_later_is_what_is_decoded_at_once() {
    let pipeline = Pipeline::load(&sd15(), &options()).unwrap();
    let mut generation = pipeline.begin(&request()).unwrap();
    let (mut at_once, mut pending) = (Vec::new(), Vec::new());
    while generation.step().unwrap().is_some() {
        at_once.push(generation.preview(PreviewMethod::Taesd).unwrap().unwrap());
        for _ in 0..2 {
            pending.push(generation.pending_preview(PreviewMethod::Taesd).unwrap().unwrap());
        }
    }
    drop(generation);
    drop(pipeline);
    let background = thread::spawn(move || {
        let mut background = Background::enter(2);
        let (mut asked, mut pictures) = (0, Vec::<RgbImage>::new());
        for (index, preview) in pending.into_iter().enumerate() {
            assert!(preview.must_be_decoded());
            background.begin();
            pictures.push(match index % 2 {
                0 => preview.picture().unwrap(),
                _ => {
                    let mut go_on = || {
                        asked += 1;
                        background.rest();
                        true
                    };
                    preview.picture_while(&mut go_on).unwrap().unwrap()
                }
            });
        }
        (asked, pictures)
    });
    let (asked, pictures) = background.join().unwrap();
    assert!(asked >= 4 * 10, "asked {asked} times");
    for (found, expected) in pictures.chunks(2).zip(&at_once) {
        assert!(found.iter().all(|picture| picture == expected));
    }
}

#[test]
fn decoding_ends_where_the_caller_says() {
    let pipeline = Pipeline::load(&sd15(), &options()).unwrap();
    let mut generation = pipeline.begin(&request()).unwrap();
    generation.step().unwrap();
    let mut left = 3;
    let mut go_on = || {
        left -= 1;
        left > 0
    };
    let preview = generation.pending_preview(PreviewMethod::Taesd).unwrap().unwrap();
    assert_eq!((preview.picture_while(&mut go_on).unwrap(), left), (None, 0));
    // What needs no network is not asked about.
    let preview = generation.pending_preview(PreviewMethod::LatentRgb).unwrap().unwrap();
    assert!(!preview.must_be_decoded());
    assert!(preview.picture_while(&mut || false).unwrap().is_some());
}

#[test]
fn pictures_are_the_same_with_previews_beside_the_steps() {
    let pipeline = Pipeline::load(&sd15(), &options()).unwrap();
    let request = GenerationRequest { preview: Some(PreviewMethod::Taesd), ..request() };
    let alone = images(&pipeline, &GenerationRequest { preview: None, ..request.clone() });
    let (to, previews) = mpsc::channel::<PendingPreview>();
    let decoding = thread::spawn(move || {
        let _background = Background::enter(2);
        let pictures: Vec<_> = previews.into_iter().map(|preview| preview.picture().unwrap()).collect();
        pictures.len()
    });
    let mut generation = pipeline.begin(&request).unwrap();
    while generation.step().unwrap().is_some() {
        to.send(generation.pending_preview(PreviewMethod::Taesd).unwrap().unwrap()).unwrap();
    }
    let beside: Vec<_> = generation.finish().unwrap().images.into_iter().map(|(image, _)| image).collect();
    drop(to);
    assert_eq!((decoding.join().unwrap(), beside), (4, alone));
}

/// Where a tiny autoencoder is the VAE, both methods are decoded by it, beside the steps.
#[test]
fn a_tiny_autoencoder_in_the_place_of_the_vae_makes_previews_too() {
    let files = ModelFiles::folder(path("fixtures/sd15/model")).unwrap();
    let files = files.with_vae(path("fixtures/taesd/model")).unwrap();
    let pipeline = Pipeline::load(&ModelSource::Files(files), &LoadOptions::default()).unwrap();
    let mut generation = pipeline.begin(&request()).unwrap();
    while generation.step().unwrap().is_some() {}
    let previews = [PreviewMethod::Taesd, PreviewMethod::Vae].map(|method| {
        let preview = generation.pending_preview(method).unwrap().unwrap();
        assert!(preview.must_be_decoded(), "{method:?}");
        preview.picture().unwrap()
    });
    // The last step ended without noise: what it means the picture to become is the picture.
    let result = generation.finish().unwrap().images.remove(0).0;
    assert!(previews.iter().all(|preview| *preview == result));
}

#[test]
fn every_family_has_a_linear_map() {
    for model in RandomModel::ALL {
        let info = Pipeline::describe(&ModelSource::Random(model), &LoadOptions::default()).unwrap();
        assert!(info.latent_rgb.is_some() && info.preview_vae, "{}", model.name());
    }
    let map = |model: &str| {
        let source = ModelSource::folder(path(model)).unwrap();
        Pipeline::describe(&source, &LoadOptions::default()).unwrap().latent_rgb
    };
    let demo = map("models/demo");
    assert!(demo.is_some() && demo != map("fixtures/sd15/model"), "the demonstration model has its own");
}

/// The memory of decoding beside a step is counted where previews are told of, and only there.
#[test]
fn memory_is_counted_for_previews_that_are_asked_for() {
    let sized = |options: LoadOptions| LoadOptions { width: Some(512), height: Some(512), ..options };
    let estimate = |options| Pipeline::estimate_memory(&sd15(), &options).unwrap();
    let (without, with) = (estimate(sized(LoadOptions::default())), estimate(sized(options())));
    let decoding = AutoencoderTiny::decode_workspace(512, 512);
    assert_eq!(with.workspace, without.workspace + decoding);
    let tiny =
        AutoencoderTiny::loaded_bytes(&path("fixtures/taesd/model"), &Device::Cpu, candle_core::DType::F32);
    assert_eq!(with.weights, without.weights + tiny.unwrap());

    // Room for the picture and half of what decoding takes.
    let memory = MemoryLimit::Bytes(with.weights + without.workspace + decoding / 2);
    let pipeline = Pipeline::load(&sd15(), &LoadOptions { memory, ..options() }).unwrap();
    let begin = |preview| {
        let (width, height) = (Some(512), Some(512));
        pipeline.begin(&GenerationRequest { width, height, preview, ..request() })
    };
    for enough in [None, Some(PreviewMethod::LatentRgb), Some(PreviewMethod::Vae)] {
        assert!(begin(enough).is_ok(), "{enough:?}");
    }
    let error = begin(Some(PreviewMethod::Taesd)).err().unwrap();
    assert!(matches!(error, Error::NotEnoughMemory { .. }), "{error}");
}
