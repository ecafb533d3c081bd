//! The tiny autoencoder against diffusers' (`fixtures/taesd`, made by `tools/reference`).

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use sd_models::taesd::AutoencoderTiny;

/// The largest difference relative to the largest expected value.
const TOLERANCE: f32 = 1e-4;

fn fixtures() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/taesd"))
}

fn open(path: &str) -> AutoencoderTiny {
    AutoencoderTiny::open(&fixtures().join(path), &Device::Cpu, DType::F32).unwrap()
}

fn expected() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixtures().join("expected.safetensors"), &Device::Cpu).unwrap()
}

fn relative(found: &Tensor, expected: &Tensor) -> f32 {
    let largest = |tensor: &Tensor| tensor.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert_eq!(found.dims(), expected.dims());
    largest(&(found - expected).unwrap()) / largest(expected)
}

/// A folder, its file alone, and the original repository's names.
#[test]
fn pixels_and_latents_are_those_of_the_reference() {
    let expected = expected();
    for (path, encodes) in [
        ("model", true),
        ("model/diffusion_pytorch_model.safetensors", true),
        ("original/taesd_decoder.safetensors", false),
    ] {
        let tiny = open(path);
        assert_eq!(
            (tiny.latent_channels(), tiny.scale_factor(), tiny.has_encoder()),
            (4, 8, encodes),
            "{path}"
        );
        let difference = relative(&tiny.decode(&expected["latents"]).unwrap(), &expected["decoded"]);
        println!("{path}: decoded {difference:e}");
        assert!(difference <= TOLERANCE, "{path}: {difference:e}");
        match encodes {
            true => {
                let difference = relative(&tiny.encode(&expected["image"]).unwrap(), &expected["encoded"]);
                println!("{path}: encoded {difference:e}");
                assert!(difference <= TOLERANCE, "{path}: {difference:e}");
            }
            false => assert!(tiny.encode(&expected["image"]).is_err()),
        }
    }
}

/// Both of the original files together, as some repositories have them.
#[test]
fn parts_may_stand_in_one_file_under_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = HashMap::new();
    for part in ["decoder", "encoder"] {
        let path = fixtures().join(format!("original/taesd_{part}.safetensors"));
        for (name, tensor) in candle_core::safetensors::load(path, &Device::Cpu).unwrap() {
            tensors.insert(format!("taesd_{part}.{name}"), tensor);
        }
    }
    let path = folder.path().join("both.safetensors");
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let tiny = AutoencoderTiny::open(&path, &Device::Cpu, DType::F32).unwrap();
    let expected = expected();
    assert!(relative(&tiny.decode(&expected["latents"]).unwrap(), &expected["decoded"]) <= TOLERANCE);
    assert!(relative(&tiny.encode(&expected["image"]).unwrap(), &expected["encoded"]) <= TOLERANCE);
}

#[test]
fn what_is_no_tiny_autoencoder_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let refused =
        |path: PathBuf| AutoencoderTiny::open(&path, &Device::Cpu, DType::F32).unwrap_err().to_string();
    let error = refused(fixtures().join("original/taesd_encoder.safetensors"));
    assert!(error.contains("taesd_encoder.safetensors") && error.contains("no decoder"), "{error}");
    assert!(refused(folder.path().join("none")).contains("none"));

    let config = folder.path().join("config.json");
    std::fs::write(&config, r#"{"act_fn": "gelu"}"#).unwrap();
    let error = refused(folder.path().to_owned());
    assert!(error.contains("act_fn") && error.contains("gelu") && error.contains("relu"), "{error}");
    std::fs::write(&config, "{}").unwrap();
    assert!(refused(folder.path().to_owned()).contains("diffusion_pytorch_model"));

    let path = fixtures().join("original/taesd_decoder.safetensors");
    let whole = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let last = whole.keys().filter_map(|name| name.split('.').next()?.parse::<usize>().ok()).max().unwrap();
    let cut: HashMap<_, _> =
        whole.into_iter().filter(|(name, _)| !name.starts_with(&format!("{last}."))).collect();
    let path = folder.path().join("cut.safetensors");
    candle_core::safetensors::save(&cut, &path).unwrap();
    assert!(refused(path).contains("cut.safetensors"));
}
