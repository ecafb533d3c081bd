//! The tiny models of the fixtures as single files, spelt as `fixtures/single_files` says.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

pub const FAMILIES: [&str; 4] = ["sd15", "sd21", "sdxl", "refiner"];

/// f32 values and their shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// One tensor of a single file.
pub struct Spelling {
    /// `copy`, `conv`, `stack` or `transpose`.
    pub how: String,
    /// The folder's tensors in it, each with the checksum of what diffusers loaded.
    pub names: Vec<(String, u32)>,
}

pub fn fixtures() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures")).to_path_buf()
}

pub fn model(family: &str) -> PathBuf {
    fixtures().join(family).join("model")
}

/// For each part, the spelling of each tensor of the file.
pub fn spellings(family: &str) -> BTreeMap<String, BTreeMap<String, Spelling>> {
    let path = fixtures().join(format!("single_files/{family}.json"));
    let text = std::fs::read_to_string(path).unwrap();
    let fixture: Value = serde_json::from_str(&text).unwrap();
    let spelling = |text: &str| {
        let mut words = text.split(' ');
        let how = words.next().unwrap().to_owned();
        let rest: Vec<&str> = words.collect();
        let names = rest
            .chunks(2)
            .map(|pair| (pair[0].to_owned(), u32::from_str_radix(pair[1], 16).unwrap()))
            .collect();
        Spelling { how, names }
    };
    let parts = fixture["parts"].as_object().unwrap().iter();
    parts
        .map(|(part, rows)| {
            let rows = rows.as_object().unwrap().iter();
            (
                part.clone(),
                rows.map(|(name, text)| (name.clone(), spelling(text.as_str().unwrap()))).collect(),
            )
        })
        .collect()
}

/// Every tensor of the safetensors files in a folder, text encoders without `text_model.`.
pub fn tensors(folder: &Path) -> BTreeMap<String, Values> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "safetensors") {
            continue;
        }
        let bytes = std::fs::read(path).unwrap();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let bytes = match view.dtype() {
                Dtype::F32 => view.data().to_vec(),
                Dtype::F16 => {
                    let halves = view.data().as_chunks::<2>().0.iter();
                    halves.flat_map(|half| half::f16::from_le_bytes(*half).to_f32().to_le_bytes()).collect()
                }
                // Positions of tokens, which no model reads.
                _ => continue,
            };
            let name = name.strip_prefix("text_model.").unwrap_or(&name).to_owned();
            all.insert(name, Values { shape: view.shape().to_vec(), bytes });
        }
    }
    all
}

fn spell(how: &str, tensors: &[&Values]) -> Values {
    let first = tensors[0];
    let [rows, columns] = [first.shape[0], first.shape.get(1).copied().unwrap_or(1)];
    match how {
        "copy" => first.clone(),
        "conv" => Values { shape: vec![rows, columns, 1, 1], bytes: first.bytes.clone() },
        "stack" => {
            let mut shape = first.shape.clone();
            shape[0] *= tensors.len();
            Values { shape, bytes: tensors.iter().flat_map(|tensor| tensor.bytes.clone()).collect() }
        }
        "transpose" => {
            let value = |row: usize, column: usize| &first.bytes[4 * (row * columns + column)..][..4];
            let bytes = (0..columns).flat_map(|c| (0..rows).flat_map(move |r| value(r, c).to_vec()));
            Values { shape: vec![columns, rows], bytes: bytes.collect() }
        }
        other => panic!("unknown spelling {other}"),
    }
}

/// The model as a single file, with what published files have beside the weights; `unet` replaces its UNet.
pub fn single_file(family: &str, unet: Option<&Path>) -> BTreeMap<String, Values> {
    let mut file = BTreeMap::new();
    for (part, rows) in spellings(family) {
        let folder = match (part.as_str(), unet) {
            ("unet", Some(unet)) => unet.to_path_buf(),
            _ => model(family).join(&part),
        };
        let tensors = tensors(&folder);
        for (name, row) in rows {
            let parts: Vec<_> = row.names.iter().map(|(name, _)| &tensors[name]).collect();
            file.insert(name, spell(&row.how, &parts));
        }
    }
    let noise = |count: usize| Values { shape: vec![count], bytes: vec![0; 4 * count] };
    file.insert("alphas_cumprod".into(), noise(1000));
    file.insert("model_ema.decay".into(), noise(1));
    file.insert("first_stage_model.loss.logvar".into(), noise(1));
    if family == "sd21" {
        // The last layer and the projection are in the file, but not used.
        file.insert("cond_stage_model.model.transformer.resblocks.4.ln_1.weight".into(), noise(32));
        file.insert(
            "cond_stage_model.model.text_projection".into(),
            Values { shape: vec![32, 32], ..noise(1024) },
        );
    }
    file
}

pub fn bytes(tensors: &BTreeMap<String, Values>, metadata: &[(&str, &str)]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, values)| {
        (name, TensorView::new(Dtype::F32, values.shape.clone(), &values.bytes).unwrap())
    });
    let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    safetensors::serialize(views, Some(metadata)).unwrap()
}

/// Writes the model as `model.safetensors` in `folder`.
pub fn write(family: &str, folder: &Path) -> PathBuf {
    let path = folder.join("model.safetensors");
    std::fs::write(&path, bytes(&single_file(family, None), &[])).unwrap();
    path
}
