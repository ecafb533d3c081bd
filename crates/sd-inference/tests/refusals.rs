//! Models that cannot work are refused when they are loaded, by file and field.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use sd_inference::{Error, LoadOptions, ModelSource, Pipeline};
use serde_json::{Value, json};

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
