//! What a file or folder holds, told from headers and configurations alone.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device};
use serde::Serialize;
use serde_json::Value;

use crate::assembled::PARTS;
use crate::single_file::{self, Family, FileKind};
use crate::tensor_index::{Location, TensorIndex};
use crate::unet::UnetConfig;
use crate::{Error, ModelFiles, Result, Weights};

/// What a model, or a part of one, is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// `pipeline` for something that makes pictures by itself; otherwise the [`FileKind`]'s name.
    pub kind: &'static str,
    /// `SD 1.x`, `SD 2.x`, `SDXL`, `SDXL refiner`; `None` where nothing tells.
    pub family: Option<&'static str>,
    /// Whether it was made for inpainting.
    pub inpainting: bool,
    /// What its scheduler says that the UNet predicts.
    pub prediction: Option<String>,
    /// Its parts.
    pub parts: Vec<Part>,
}

/// The weights of one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Part {
    /// The name of its folder, or the kind of the file.
    pub name: String,
    /// Numbers of all tensors together.
    pub parameters: u64,
    /// Bytes of them in the files.
    pub bytes: u64,
    /// The number formats, by how many parameters each has.
    pub formats: BTreeMap<String, u64>,
}

impl Inspection {
    /// Numbers of all parts together.
    pub fn parameters(&self) -> u64 {
        self.parts.iter().map(|part| part.parameters).sum()
    }

    /// Bytes of them in the files.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }
}

/// What the safetensors file at `path` holds. A checkpoint is given as its one file; open it to learn of its parts.
///
/// # Errors
/// [`Error::NotAModel`] and [`Error::BadFile`] when it cannot be read.
pub fn file(path: &Path) -> Result<Inspection> {
    Ok(loose(&single_file::read(path)?))
}

/// What tensors are that are no whole model.
fn loose(index: &TensorIndex) -> Inspection {
    let kind = FileKind::of(index);
    Inspection {
        kind: kind.name(),
        family: family_of_loose(index).map(Family::name),
        inpainting: false,
        prediction: None,
        parts: vec![part(kind.name(), index.iter().map(|(_, location)| location))],
    }
}

/// What the folder at `path` holds that is a part of a model (a UNet, a VAE, a text encoder, a ControlNet); `None` if it has
/// no weights of one, as a whole model's.
///
/// # Errors
/// As [`Weights::open`].
pub fn part_folder(path: &Path) -> Result<Option<Inspection>> {
    let files = ModelFiles::Folder(path.to_owned());
    if files.contains("model_index.json") {
        return Ok(None);
    }
    for stem in ["diffusion_pytorch_model", "model"] {
        let weights = match Weights::open(&files, ".", stem, &Device::Cpu, DType::F32) {
            Err(Error::NotAModel { .. }) => continue,
            weights => weights?,
        };
        if let Some(index) = weights.index() {
            return Ok(Some(loose(index)));
        }
    }
    Ok(None)
}

/// Whether the file at `path` is a whole model.
///
/// # Errors
/// As [`file()`].
pub fn is_checkpoint(path: &Path) -> Result<bool> {
    Ok(FileKind::of(&single_file::read(path)?) == FileKind::Checkpoint)
}

/// What the model is.
///
/// # Errors
/// As [`Weights::open`]; [`Error::Json`] for configurations that do not parse.
pub fn model(files: &ModelFiles) -> Result<Inspection> {
    let unet: UnetConfig = files.json("unet/config.json")?;
    let scheduler: Value = files.json("scheduler/scheduler_config.json")?;
    let class: Value = files.json("model_index.json").unwrap_or_default();
    let is_xl = class["_class_name"].as_str().is_some_and(|class| class.starts_with("StableDiffusionXL"));
    let mut parts = Vec::new();
    for folder in PARTS {
        if !files.contains(&format!("{folder}/config.json")) {
            continue;
        }
        let stem = if folder.starts_with("text") { "model" } else { "diffusion_pytorch_model" };
        // A checkpoint may lack a part that is named elsewhere.
        let weights = match Weights::open(files, folder, stem, &Device::Cpu, DType::F32) {
            Err(Error::NotAModel { .. }) if matches!(files, ModelFiles::Assembled(_)) => continue,
            weights => weights?,
        };
        if let Some(index) = weights.index() {
            parts.push(part(folder, index.iter().map(|(_, location)| location)));
        }
    }
    Ok(Inspection {
        kind: "pipeline",
        family: family_of_width(unet.text_width()).or(is_xl.then_some(Family::Sdxl)).map(Family::name),
        inpainting: unet.in_channels == 9,
        // Where it says nothing, the reference's classes take it for noise.
        prediction: Some(scheduler["prediction_type"].as_str().unwrap_or("epsilon").to_owned()),
        parts,
    })
}

fn part<'a>(name: &str, locations: impl Iterator<Item = &'a Location>) -> Part {
    let mut part = Part { name: name.to_owned(), parameters: 0, bytes: 0, formats: BTreeMap::new() };
    for location in locations {
        let values = location.shape.iter().fold(1u64, |product, side| product.saturating_mul(*side as u64));
        part.parameters += values;
        part.bytes += location.len() as u64;
        *part.formats.entry(format!("{:?}", location.dtype).to_lowercase()).or_default() += values;
    }
    part
}

/// The family whose cross-attention reads states of this width.
pub(crate) fn family_of_width(width: usize) -> Option<Family> {
    match width {
        768 => Some(Family::Sd1),
        1024 => Some(Family::Sd2),
        2048 => Some(Family::Sdxl),
        1280 => Some(Family::SdxlRefiner),
        _ => None,
    }
}

/// The family that a LoRA, a ControlNet, a UNet or an embedding is for.
fn family_of_loose(index: &TensorIndex) -> Option<Family> {
    if index.get("clip_g").is_some() {
        return Some(Family::Sdxl);
    }
    let input = |name: &str| {
        name.contains("attn2")
            && name.contains("to_k")
            && !["up.", "lora_B", "alpha", "dora_scale"].iter().any(|part| name.contains(part))
    };
    let keys = index.iter().find(|(name, location)| input(name) && location.shape.len() >= 2);
    let words = || match FileKind::of(index) {
        FileKind::Embedding => index.iter().find_map(|(_, location)| location.shape.last()),
        _ => None,
    };
    family_of_width(*keys.and_then(|(_, location)| location.shape.get(1)).or_else(words)?)
}
