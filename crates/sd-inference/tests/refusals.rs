//! Models that cannot work are refused when they are loaded, by file and field; models and pictures that do not fit into
//! memory, with figures.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use sd_inference::{
    DType, Device, Error, GenerationRequest, LoadOptions, MemoryLimit, ModelSource, Pipeline, RandomModel,
    VaeTiling,
};
use serde_json::{Value, json};

const SCHEDULER: &str = "scheduler/scheduler_config.json";
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/sd15/model");

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn a_configuration_that_makes_no_model_is_refused_by_file_and_field() {
    let folder = tempfile::tempdir().unwrap();
    copy(Path::new(MODEL), folder.path());
    let load =
        || Pipeline::load(&ModelSource::folder(folder.path()).unwrap(), &LoadOptions::default()).map(drop);
    load().unwrap();
    for (file, field, value) in [
        ("text_encoder/config.json", "num_attention_heads", json!(0)),
        ("text_encoder/config.json", "num_attention_heads", json!(5)),
        ("text_encoder/config.json", "max_position_embeddings", json!(1)),
        ("text_encoder/config.json", "num_hidden_layers", json!(0)),
        ("text_encoder/config.json", "hidden_size", json!(0)),
        ("unet/config.json", "norm_num_groups", json!(0)),
        ("unet/config.json", "attention_head_dim", json!(0)),
        ("vae/config.json", "latent_channels", json!(0)),
        ("vae/config.json", "block_out_channels", json!([])),
        ("unet/config.json", "attention_head_dim", json!(-3)),
        ("unet/config.json", "block_out_channels", json!("32")),
        ("vae/config.json", "sample_size", json!([64])),
        (SCHEDULER, "num_train_timesteps", json!(-5)),
        (SCHEDULER, "num_train_timesteps", json!(0)),
        (SCHEDULER, "beta_start", json!(-1)),
        (SCHEDULER, "prediction_type", json!("flow")),
        (SCHEDULER, "timestep_spacing", json!("even")),
    ] {
        let path = folder.path().join(file);
        let original = fs::read_to_string(&path).unwrap();
        let mut config: Value = serde_json::from_str(&original).unwrap();
        config[field] = value;
        fs::write(&path, config.to_string()).unwrap();
        let error = load().expect_err("a broken configuration was accepted");
        assert!(matches!(error, Error::Model(_)), "{field}: {error}");
        let message = error.to_string();
        assert!(message.contains(file) && message.contains(&format!("`{field}`")), "{message}");
        fs::write(&path, original).unwrap();
    }
}

/// What a request may not ask for is no default either. Weights need not be read to see it.
#[test]
fn defaults_outside_the_limits_are_refused_by_file_field_and_limit() {
    let folder = tempfile::tempdir().unwrap();
    copy(Path::new(MODEL), folder.path());
    let path = folder.path().join("sd-worker.json");
    let describe = |defaults: Value| {
        fs::write(&path, defaults.to_string()).unwrap();
        Pipeline::describe(&ModelSource::folder(folder.path()).unwrap(), &LoadOptions::default())
    };
    for (field, value, limit) in [
        ("default_steps", json!(0), "1..=150"),
        ("default_steps", json!(400), "1..=150"),
        ("default_guidance_scale", json!(-3), "0..=30"),
        ("default_guidance_scale", json!(30.5), "0..=30"),
        ("default_width", json!(7), "a multiple of 8 in 64..=2048"),
        ("default_width", json!(16), "a multiple of 8 in 64..=2048"),
        ("default_width", json!(9000), "a multiple of 8 in 64..=2048"),
        ("default_height", json!(100), "a multiple of 8 in 64..=2048"),
    ] {
        let error = describe(json!({field: value})).expect_err("it was accepted");
        let message = format!("{}: `{field}` is {value}, but supported is {limit}", path.display());
        assert_eq!(error.to_string(), message);
        let load = Pipeline::load(&ModelSource::folder(folder.path()).unwrap(), &LoadOptions::default());
        assert_eq!(load.map(drop).unwrap_err().to_string(), message);
    }
    let most = json!({"default_steps": 150, "default_guidance_scale": 30, "default_width": 64, "default_height": 2048});
    let info = describe(most).unwrap();
    assert_eq!((info.default_steps, info.default_guidance_scale), (150, 30.0));
    assert_eq!((info.default_width, info.default_height), (64, 2048));
    describe(json!({"default_steps": 1, "default_guidance_scale": 0})).unwrap();
}

/// The file, the field, the value as it stands there, and what would do.
#[test]
fn what_is_wrong_with_a_scheduler_s_file_is_told_in_full() {
    let folder = tempfile::tempdir().unwrap();
    copy(Path::new(MODEL), folder.path());
    let path = folder.path().join(SCHEDULER);
    let original: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for (field, value, told) in [
        ("beta_end", json!(2.0), "`beta_end` is 2, but supported is more than 0 and at most 1"),
        ("num_train_timesteps", json!(0), "`num_train_timesteps` is 0, but supported is 2 to 100000"),
        (
            "prediction_type",
            json!("flow"),
            "`prediction_type` is `flow`, but supported is one of epsilon, sample, v_prediction",
        ),
        (
            "_class_name",
            json!("MyScheduler"),
            "`_class_name` MyScheduler is not supported; docs/samplers.md lists",
        ),
    ] {
        let mut config = original.clone();
        config[field] = value;
        fs::write(&path, config.to_string()).unwrap();
        let source = ModelSource::folder(folder.path()).unwrap();
        for refused in [
            Pipeline::load(&source, &LoadOptions::default()).map(drop),
            Pipeline::describe(&source, &LoadOptions::default()).map(drop),
        ] {
            let message = refused.unwrap_err().to_string();
            let file = path.display();
            assert!(message.starts_with(&format!("{file}: {told}")), "{message}");
        }
    }
}

/// Weights that hold no number end a run with the part that they spoil.
#[test]
fn values_that_are_not_finite_are_told_with_their_stage() {
    for (file, tensor, stage) in [
        ("unet/diffusion_pytorch_model.safetensors", "conv_in.bias", "the denoising"),
        ("vae/diffusion_pytorch_model.safetensors", "decoder.conv_in.bias", "the VAE"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        copy(Path::new(MODEL), folder.path());
        let path = folder.path().join(file);
        let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        let spoilt = (tensors[tensor].ones_like().unwrap() * f64::NAN).unwrap();
        tensors.insert(tensor.into(), spoilt);
        candle_core::safetensors::save(&tensors, &path).unwrap();
        let source = ModelSource::folder(folder.path()).unwrap();
        let pipeline = Pipeline::load(&source, &LoadOptions::default()).unwrap();
        let request = GenerationRequest { steps: Some(2), ..GenerationRequest::new("a circle") };
        let mut generation = pipeline.begin(&request).unwrap();
        while generation.step().unwrap().is_some() {}
        let Err(error) = generation.finish() else { panic!("{file}: a picture of nothing") };
        assert!(matches!(&error, Error::NotFinite { stage: found } if found == stage), "{file}: {error}");
    }
}

fn limited(bytes: u64) -> LoadOptions {
    LoadOptions { memory: MemoryLimit::Bytes(bytes), ..LoadOptions::default() }
}

#[test]
fn a_model_that_does_not_fit_is_refused_before_it_is_loaded() {
    let source = ModelSource::folder(MODEL).unwrap();
    let needed = Pipeline::estimate_memory(&source, &LoadOptions::default()).unwrap();
    assert!(Pipeline::load(&source, &limited(needed.total())).is_ok());
    let Err(error) = Pipeline::load(&source, &limited(needed.total() - 1)) else { panic!("it was loaded") };
    assert!(matches!(error, Error::NotEnoughMemory { .. }), "{error}");
    let message = error.to_string();
    for part in ["fixtures/sd15/model in f32", "weights", "64x64", "the limit is", "bf16"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    // A smaller picture takes less, and half as wide weights too.
    let smaller = LoadOptions { width: Some(32), height: Some(32), ..limited(needed.total() - 1) };
    assert!(Pipeline::load(&source, &smaller).is_ok());
    let halved = LoadOptions { dtype: DType::BF16, ..limited(needed.total() - 1) };
    assert!(Pipeline::load(&source, &halved).is_ok());
}

#[test]
fn a_picture_that_does_not_fit_is_refused_before_it_is_begun() {
    let source = ModelSource::folder(MODEL).unwrap();
    let needed = Pipeline::estimate_memory(&source, &LoadOptions::default()).unwrap();
    let pipeline = Pipeline::load(&source, &limited(needed.total())).unwrap();
    let request = GenerationRequest { steps: Some(1), ..GenerationRequest::new("a circle") };
    assert!(pipeline.begin(&request).is_ok());
    for request in [
        GenerationRequest { width: Some(512), height: Some(256), ..request.clone() },
        GenerationRequest { num_images: 64, ..request.clone() },
    ] {
        let Err(error) = pipeline.begin(&request) else { panic!("accepted: {request:?}") };
        assert!(matches!(error, Error::NotEnoughMemory { .. }), "{error}");
        assert!(error.to_string().contains("width") && error.to_string().contains("height"), "{error}");
    }
    // Without guidance the UNet works on half as much at once.
    let pair = GenerationRequest { num_images: 2, guidance_scale: Some(1.0), ..request };
    assert!(pipeline.begin(&pair).is_ok());
}

/// The weights of full-size models, told without making them: a byte more or less than it takes is no matter, a
/// wrong table of parameters is.
#[test]
fn full_size_models_are_estimated_without_loading_them() {
    for (model, dtype, gigabytes) in [
        (RandomModel::Sd15, DType::F32, 4.26),
        (RandomModel::Sd15, DType::BF16, 2.21),
        (RandomModel::Sd21, DType::F32, 5.16),
        (RandomModel::Sdxl, DType::F32, 13.88),
        (RandomModel::Sdxl, DType::BF16, 7.14),
    ] {
        let options = LoadOptions { dtype, memory: MemoryLimit::Off, ..LoadOptions::default() };
        let told = Pipeline::estimate_memory(&ModelSource::Random(model), &options).unwrap();
        let found = told.weights as f64 / 1e9;
        assert!((found - gigabytes).abs() < 0.01, "{} in {dtype:?}: {found} GB", model.name());
    }
}

#[test]
fn pictures_say_whether_they_were_decoded_in_tiles() {
    let source = ModelSource::folder(MODEL).unwrap();
    for (vae_tiling, side, tile) in [
        (VaeTiling::Auto, 128, None),
        (VaeTiling::Always, 128, Some(64)),
        (VaeTiling::Always, 64, None),
        (VaeTiling::Never, 128, None),
    ] {
        let pipeline =
            Pipeline::load(&source, &LoadOptions { vae_tiling, ..LoadOptions::default() }).unwrap();
        let request = GenerationRequest {
            steps: Some(1),
            width: Some(side),
            height: Some(side),
            ..GenerationRequest::new("a circle")
        };
        let mut generation = pipeline.begin(&request).unwrap();
        assert_eq!(generation.notes().iter().any(|note| note.contains("tiles")), tile.is_some());
        while generation.step().unwrap().is_some() {}
        let finished = generation.finish().unwrap();
        assert_eq!(finished.vae_tile, tile, "{vae_tiling:?} at {side} pixels");
        assert_eq!(finished.images[0].0.dimensions(), (side as u32, side as u32));
    }
}
