//! Every model part against the values that diffusers and transformers computed on the same tiny weights
//! (`fixtures/<family>/expected.*`, made by `tools/reference`).

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use sd_models::clip::{ClipTextConfig, ClipTextModel, ClipTokenizer};
use sd_models::unet::{AddedCondition, Unet2DConditionModel, UnetConfig};
use sd_models::vae::{AutoencoderKl, Tiles};
use sd_models::{ModelFiles, Weights};
use serde_json::Value;

/// The largest difference relative to the largest expected value.
const TOLERANCE: f32 = 1e-4;
const FAMILIES: [&str; 3] = ["sd15", "sd21", "sdxl"];

struct Family {
    name: &'static str,
    files: ModelFiles,
    notes: Value,
    tensors: HashMap<String, Tensor>,
}

fn fixtures() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures"))
}

impl Family {
    fn open(name: &'static str) -> Self {
        let folder = fixtures().join(name);
        let notes = std::fs::read_to_string(folder.join("expected.json")).unwrap();
        Self {
            name,
            files: ModelFiles::folder(folder.join("model")).unwrap(),
            notes: serde_json::from_str(&notes).unwrap(),
            tensors: candle_core::safetensors::load(folder.join("expected.safetensors"), &Device::Cpu)
                .unwrap(),
        }
    }

    fn tensor(&self, key: &str) -> &Tensor {
        self.tensors.get(key).unwrap_or_else(|| panic!("{}: no expected tensor {key}", self.name))
    }

    fn weights(&self, folder: &str, stem: &str) -> Weights {
        Weights::open(&self.files, folder, stem, &Device::Cpu, DType::F32).unwrap()
    }

    fn prompts(&self, tokenizer: &str) -> Vec<(String, Vec<u32>)> {
        let prompts = self.notes["tokens"][tokenizer]["prompts"].as_array().unwrap();
        let ids = |entry: &Value| serde_json::from_value(entry["input_ids"].clone()).unwrap();
        prompts.iter().map(|entry| (entry["prompt"].as_str().unwrap().to_owned(), ids(entry))).collect()
    }

    fn expect(&self, key: &str, found: &Tensor) {
        let expected = self.tensor(key);
        let found = found.reshape(expected.shape()).unwrap_or_else(|_| {
            panic!("{} {key}: shape {:?}, expected {:?}", self.name, found.shape(), expected.shape())
        });
        let largest = |t: &Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        let relative = largest(&(&found - expected).unwrap()) / largest(expected);
        assert!(relative <= TOLERANCE, "{} {key}: relative difference {relative:e}", self.name);
    }
}

fn encoders(family: &Family) -> Vec<(&'static str, &'static str)> {
    let both = [("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")];
    both.into_iter().filter(|(_, encoder)| family.files.contains(&format!("{encoder}/config.json"))).collect()
}

#[test]
fn tokens_are_those_of_the_reference() {
    for name in FAMILIES {
        let family = Family::open(name);
        for (folder, _) in encoders(&family) {
            let tokenizer = ClipTokenizer::load(&family.files, folder, 77).unwrap();
            let prompts = family.prompts(folder);
            assert!(prompts.len() >= 8, "{name}: too few prompts to mean anything");
            for (prompt, expected) in prompts {
                let (ids, _) = tokenizer.encode(&prompt).unwrap();
                assert_eq!(ids, expected, "{name} {folder}: {prompt:?}");
            }
        }
    }
}

#[test]
fn text_states_are_those_of_the_reference() {
    for name in FAMILIES {
        let family = Family::open(name);
        let parts = encoders(&family);
        for prompt in family.notes["encoded_prompts"].as_array().unwrap() {
            let prompt = prompt.as_u64().unwrap() as usize;
            for (number, (tokenizer, encoder)) in parts.iter().enumerate() {
                let config: ClipTextConfig = family.files.json(&format!("{encoder}/config.json")).unwrap();
                let model = ClipTextModel::load(&family.weights(encoder, "model"), config, encoder).unwrap();
                let ids = family.prompts(tokenizer)[prompt].1.clone();
                let output = model.forward(&[ids]).unwrap();
                match parts.len() {
                    1 => family.expect(&format!("text/{prompt}/hidden"), &output.last_hidden_state),
                    _ => {
                        let penultimate = &output.hidden_states[output.hidden_states.len() - 2];
                        family.expect(&format!("text/{prompt}/hidden_{}", number + 1), penultimate);
                        if number == 1 {
                            family.expect(&format!("text/{prompt}/pooled"), &output.pooled);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_unet_predicts_what_the_reference_predicts() {
    for name in FAMILIES {
        let family = Family::open(name);
        let config: UnetConfig = family.files.json("unet/config.json").unwrap();
        let unet =
            Unet2DConditionModel::load(&family.weights("unet", "diffusion_pytorch_model"), config, "unet")
                .unwrap();
        for case in ["single", "batch", "odd"] {
            let input = |part: &str| family.tensor(&format!("unet/{case}/{part}"));
            let timesteps: Vec<f64> =
                input("timestep").to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect();
            let added = family.tensors.get(&format!("unet/{case}/text_embeds")).map(|text_embeds| {
                let ids = input("time_ids").to_vec2::<f32>().unwrap();
                let time_ids = ids.iter().map(|row| row.iter().map(|id| f64::from(*id)).collect()).collect();
                AddedCondition { text_embeds: text_embeds.clone(), time_ids }
            });
            let output = unet.forward(input("sample"), &timesteps, input("context"), added.as_ref()).unwrap();
            family.expect(&format!("unet/{case}/output"), &output);
        }
    }
}

#[test]
fn the_vae_encodes_and_decodes_like_the_reference() {
    for name in FAMILIES {
        let family = Family::open(name);
        let config = family.files.json("vae/config.json").unwrap();
        let vae =
            AutoencoderKl::load(&family.weights("vae", "diffusion_pytorch_model"), config, "vae").unwrap();
        family.expect("vae/decoded", &vae.decode(family.tensor("vae/latent")).unwrap());
        let latents = vae.encode(family.tensor("vae/image")).unwrap();
        family.expect("vae/mean", &latents.mean);
        family.expect("vae/logvar", &latents.logvar);
    }
}

#[test]
fn the_vae_works_in_tiles_like_the_reference() {
    for name in FAMILIES {
        let family = Family::open(name);
        let config = family.files.json("vae/config.json").unwrap();
        let vae =
            AutoencoderKl::load(&family.weights("vae", "diffusion_pytorch_model"), config, "vae").unwrap();
        let tiles = Tiles::of(vae.config());
        let decoded = family.tensor("vae/tiled/decoded");
        family.expect(
            "vae/tiled/decoded",
            &vae.decode_tiled(family.tensor("vae/tiled/latent"), tiles).unwrap(),
        );
        let latents = vae.encode_tiled(&decoded.clamp(-1f32, 1f32).unwrap(), tiles).unwrap();
        let moments = Tensor::cat(&[&latents.mean, &latents.logvar], 1).unwrap();
        family.expect("vae/tiled/moments", &moments);
    }
}

/// A batch gives each of its samples what it gives alone, to the last bit.
#[test]
fn a_batch_equals_its_samples_one_by_one() {
    for name in FAMILIES {
        let family = Family::open(name);
        let config: UnetConfig = family.files.json("unet/config.json").unwrap();
        let unet =
            Unet2DConditionModel::load(&family.weights("unet", "diffusion_pytorch_model"), config, "unet")
                .unwrap();
        let input = |part: &str| family.tensor(&format!("unet/batch/{part}"));
        let added = |from: usize, count: usize| {
            family.tensors.get("unet/batch/text_embeds").map(|text_embeds| AddedCondition {
                text_embeds: text_embeds.narrow(0, from, count).unwrap(),
                time_ids: input("time_ids").to_vec2::<f32>().unwrap()[from..from + count]
                    .iter()
                    .map(|row| row.iter().map(|id| f64::from(*id)).collect())
                    .collect(),
            })
        };
        let (sample, text) = (input("sample"), input("context"));
        let both = unet.forward(sample, &[900.0, 20.0], text, added(0, 2).as_ref()).unwrap();
        for (row, timestep) in [900.0, 20.0].into_iter().enumerate() {
            let narrow = |t: &Tensor| t.narrow(0, row, 1).unwrap().contiguous().unwrap();
            let alone =
                unet.forward(&narrow(sample), &[timestep], &narrow(text), added(row, 1).as_ref()).unwrap();
            let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(values(&alone), values(&narrow(&both)), "{name}: row {row}");
        }
    }
}

/// Half-precision files hold the same model: close to the f32 one, not equal.
#[test]
fn the_fp16_variant_loads_and_is_close() {
    let family = Family::open("sd15");
    let half = ModelFiles::folder(fixtures().join("sd15/model-fp16")).unwrap();
    let config: UnetConfig = half.json("unet/config.json").unwrap();
    let weights = Weights::open(&half, "unet", "diffusion_pytorch_model", &Device::Cpu, DType::F32).unwrap();
    let unet = Unet2DConditionModel::load(&weights, config, "unet").unwrap();
    let timestep = family.tensor("unet/single/timestep").to_vec1::<f32>().unwrap();
    let output = unet
        .forward(
            family.tensor("unet/single/sample"),
            &[f64::from(timestep[0])],
            family.tensor("unet/single/context"),
            None,
        )
        .unwrap();
    let expected = family.tensor("unet/single/output");
    let difference =
        (output - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(difference > 0.0 && difference < 0.05, "difference {difference}");
}
