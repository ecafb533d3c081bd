//! ControlNets of the fixtures' families, put together where a test wants them. Shared with the tests of other crates.
//!
//! As at the beginning of its training, such a net is a copy of its UNet's way down and middle; the fixtures hold only
//! what it has beside that.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

/// What a ControlNet shares with its UNet.
const SHARED: [&str; 5] = ["conv_in.", "time_embedding.", "add_embedding.", "down_blocks.", "mid_block."];

/// A folder with `config.json` and weights. `net` is one of the family's `controlnet/*.safetensors`.
pub fn folder(family: &Path, net: &str, target: &Path) {
    std::fs::create_dir_all(target).unwrap();
    std::fs::copy(family.join("controlnet/config.json"), target.join("config.json")).unwrap();
    file(family, net, &target.join("diffusion_pytorch_model.safetensors"), |name| name.to_owned());
}

/// A single file whose tensors are called what `name` makes of their names in diffusers.
pub fn file(family: &Path, net: &str, target: &Path, name: impl Fn(&str) -> String) {
    let files: Vec<Vec<u8>> = weights(&family.join("model/unet"))
        .into_iter()
        .chain([family.join(format!("controlnet/{net}.safetensors"))])
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    let own = files.len() - 1;
    let mut tensors: Vec<(String, TensorView<'_>)> = Vec::new();
    for (number, bytes) in files.iter().enumerate() {
        let stored = SafeTensors::deserialize(bytes).unwrap();
        for key in stored.names() {
            if number == own || SHARED.iter().any(|part| key.starts_with(part)) {
                let view = stored.tensor(key).unwrap();
                let view = TensorView::new(view.dtype(), view.shape().to_vec(), view.data()).unwrap();
                tensors.push((name(key), view));
            }
        }
    }
    std::fs::write(target, safetensors::serialize(tensors, None).unwrap()).unwrap();
}

/// The names of the first release, by those of diffusers.
pub fn original_names(family: &Path) -> HashMap<String, String> {
    let text = std::fs::read_to_string(family.join("controlnet/names.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn weights(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|ending| ending == "safetensors")).collect()
}
