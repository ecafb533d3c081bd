//! Single-file checkpoints in the original naming: Stable Diffusion 1.x, 2.x, XL and its refiner, and what was made from
//! them for inpainting. What a file is, its tensors tell: names and shapes, never the name of the file.
//!
//! A file is presented as a folder in the diffusers layout ([`ModelFiles::Assembled`]): its tensors under other names,
//! in place, and the family's configurations, which it does not carry. Reference:
//! `diffusers.StableDiffusionPipeline.from_single_file`.

mod builtin;
mod keys;
mod kind;
mod unet;

use std::path::Path;
use std::sync::Arc;

use safetensors::Dtype;

pub use builtin::{Family, Prediction};
pub use kind::FileKind;
pub(crate) use unet::with_unet;

use crate::assembled::{AssembledFiles, PartSource, Text};
use crate::clip::ClipTextConfig;
use crate::files::FileBytes;
use crate::tensor_index::{TensorFile, TensorIndex};
use crate::{Error, ModelFiles, Result, json, registry, taesd};

/// Of models for SD 2.x that predict the velocity, this bias spreads more widely than of those that predict noise.
const VELOCITY_MARK: &str = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias";
/// The standard deviation between the two.
const VELOCITY_SPREAD: f64 = 0.09;

/// What a checkpoint turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recognised {
    /// Which architecture.
    pub family: Family,
    /// Channels of the UNet's input: 4, or 9 for inpainting.
    pub in_channels: usize,
    /// What it predicts.
    pub prediction: Prediction,
    /// Whether it was trained with noise schedules that end in pure noise.
    pub zero_terminal_snr: bool,
}

/// The endings of files that can run code when they are read.
const PICKLES: [&str; 5] = ["ckpt", "pt", "pth", "bin", "pkl"];

/// The tensors of the file at `path`.
///
/// # Errors
/// [`Error::NotAModel`] for a pickle or a missing file, [`Error::BadFile`] for a broken one.
pub(crate) fn read(path: &Path) -> Result<TensorIndex> {
    let name = path.display().to_string();
    if !path.is_file() {
        return Err(Error::NotAModel { path: name, reason: "no such file".into() });
    }
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_lowercase();
    if PICKLES.contains(&ending.as_str()) {
        return Err(Error::NotAModel {
            path: name,
            reason: "it is a pickle, which can run code when it is read; docs/models.md says how to make a safetensors \
                     file of it"
                .into(),
        });
    }
    TensorIndex::read(vec![TensorFile { name, bytes: FileBytes::map(path)? }])
}

/// The checkpoint at `path` as a folder. `config` has what the file lacks or what differs from its family's ordinary
/// models: configurations, tokenizers, whole parts.
pub(crate) fn open(path: &Path, config: Option<ModelFiles>) -> Result<ModelFiles> {
    let index = read(path)?;
    let name = path.display().to_string();
    let recognised = recognise(&index, &name)?;
    let Recognised { family, .. } = recognised;

    let mut files = AssembledFiles::over(config, name.clone());
    for file in Family::FILES {
        if files.contains(file) {
            continue;
        }
        if let Some(text) = config_of(recognised, file) {
            let label = format!("{name} (built-in {file})");
            files.add_text(file, Text { label, bytes: FileBytes::Shared(text.into()) });
        }
    }
    add_tokenizers(&mut files, family)?;

    add_part(&mut files, "unet", unet::tensors(&index, kind::UNET));
    add_part(&mut files, "vae", vae_tensors(&index));
    for (folder, _) in family.text_encoders() {
        let tensors = text_tensors(&index, &files, family, folder)?;
        add_part(&mut files, folder, tensors);
    }
    Ok(ModelFiles::Assembled(Arc::new(files)))
}

/// `files` with the VAE at `path`: a folder or file in the diffusers layout, a whole model, or a file in the original
/// naming; a tiny autoencoder likewise.
pub(crate) fn with_vae(files: ModelFiles, path: &Path) -> Result<ModelFiles> {
    let name = files.name();
    let mut assembled = AssembledFiles::over(Some(files), name);
    if path.is_dir() {
        let (text, source) = part_folder(path, "vae")?;
        // A tiny autoencoder reads the latents of the model's own VAE, whose configuration goes on to describe them.
        if !taesd::is_config(text.bytes.as_slice(), &text.label)? {
            assembled.add_text("vae/config.json", text);
        }
        assembled.add_part("vae", source);
        return Ok(ModelFiles::Assembled(Arc::new(assembled)));
    }
    let index = read(path)?;
    let own = index.get("decoder.mid_block.resnets.0.conv1.weight").is_some()
        || taesd::names_decoder(|name| index.get(name).is_some());
    let tensors = if own { index } else { vae_tensors(&index) };
    if tensors.is_empty() {
        let found = FileKind::of(&read(path)?).name();
        let reason = format!("no VAE is in it; by its tensors it is: {found}");
        return Err(Error::NotAModel { path: path.display().to_string(), reason });
    }
    assembled.add_part("vae", PartSource::Tensors(Arc::new(tensors)));
    Ok(ModelFiles::Assembled(Arc::new(assembled)))
}

/// The configuration and the weights of a part: `path` is its own folder, or that of a whole model.
fn part_folder(path: &Path, part: &str) -> Result<(Text, PartSource)> {
    let whole = path.join(part).join("config.json").is_file();
    // A part's own folder is the folder above it and its name.
    let absolute = path.canonicalize().map_err(|source| Error::Io { path: path.into(), source })?;
    let (root, folder) = match (whole, absolute.parent(), absolute.file_name()) {
        (false, Some(root), Some(folder)) => (root, folder.to_string_lossy().into_owned()),
        _ => (absolute.as_path(), part.to_owned()),
    };
    let files = ModelFiles::Folder(root.to_path_buf());
    let config = format!("{folder}/config.json");
    if !files.contains(&config) {
        let reason = format!("it has neither a config.json nor {part}/config.json");
        return Err(Error::NotAModel { path: path.display().to_string(), reason });
    }
    let text = Text { label: files.describe(&config), bytes: files.bytes(&config)? };
    Ok((text, PartSource::Files { files, folder }))
}

fn add_part(files: &mut AssembledFiles, folder: &str, tensors: TensorIndex) {
    if !tensors.is_empty() {
        files.add_part(folder, PartSource::Tensors(Arc::new(tensors)));
    }
}

fn vae_tensors(index: &TensorIndex) -> TensorIndex {
    let inside = index.get(&format!("{}decoder.conv_in.weight", kind::VAE)).is_some();
    let prefix = if inside { kind::VAE } else { "" };
    let levels = keys::vae_levels(|key| index.get(&format!("{prefix}{key}")).is_some());
    index.renamed(|key, location| match key.strip_prefix(prefix) {
        Some(key) => keys::vae(key, levels, location),
        None => Vec::new(),
    })
}

fn text_tensors(
    index: &TensorIndex,
    files: &AssembledFiles,
    family: Family,
    folder: &str,
) -> Result<TensorIndex> {
    let (plain, open) = match (family, folder) {
        (Family::Sdxl, "text_encoder_2") => ("", "conditioner.embedders.1.model."),
        (Family::SdxlRefiner, _) => ("", "conditioner.embedders.0.model."),
        (Family::Sdxl, _) => ("conditioner.embedders.0.transformer.", ""),
        _ => ("cond_stage_model.transformer.", "cond_stage_model.model."),
    };
    let file = format!("{folder}/config.json");
    let config: ClipTextConfig = json::from_slice(files.bytes(&file)?.as_slice())
        .map_err(|source| Error::Json { file: files.describe(&file), source })?;
    let shape = (&config).into();
    Ok(index.renamed(|key, location| {
        let strip = |prefix: &str| key.strip_prefix(prefix).filter(|_| !prefix.is_empty());
        if let Some(key) = strip(plain) {
            return vec![(key.to_owned(), location.clone())];
        }
        strip(open).map_or_else(Vec::new, |key| keys::open_clip(key, shape, location))
    }))
}

/// Vocabularies from the hub cache, where the base has none.
fn add_tokenizers(files: &mut AssembledFiles, family: Family) -> Result<()> {
    for (_, folder) in family.text_encoders() {
        let has = |file: &str| files.contains(&format!("{folder}/{file}"));
        if has("tokenizer.json") || has("vocab.json") {
            continue;
        }
        let Some(vocabulary) = registry::clip_vocabulary() else { continue };
        for file in ["vocab.json", "merges.txt"] {
            let path = vocabulary.join(file);
            let text = Text { label: path.display().to_string(), bytes: FileBytes::map(&path)? };
            files.add_text(&format!("{folder}/{file}"), text);
        }
        let pad = serde_json::json!({"pad_token": family.pad_token(folder)}).to_string();
        let label = format!("{} (built-in {folder}/special_tokens_map.json)", files.name());
        let text = Text { label, bytes: FileBytes::Shared(pad.into_bytes().into()) };
        files.add_text(&format!("{folder}/special_tokens_map.json"), text);
    }
    Ok(())
}

fn config_of(recognised: Recognised, file: &str) -> Option<Vec<u8>> {
    let Recognised { family, in_channels, prediction, zero_terminal_snr } = recognised;
    let text = family.config_of(file, in_channels, prediction)?;
    if !(zero_terminal_snr && file == "scheduler/scheduler_config.json") {
        return Some(text);
    }
    let mut config: serde_json::Value = serde_json::from_slice(&text).ok()?;
    config["rescale_betas_zero_snr"] = true.into();
    serde_json::to_vec_pretty(&config).ok()
}

/// What the checkpoint with these tensors is.
///
/// # Errors
/// [`Error::NotAModel`] says what it is instead.
pub(crate) fn recognise(index: &TensorIndex, name: &str) -> Result<Recognised> {
    let refuse = |reason: String| Err(Error::NotAModel { path: name.to_owned(), reason });
    let kind = FileKind::of(index);
    if kind != FileKind::Checkpoint {
        return refuse(format!("no whole model is in this file; by its tensors it is: {}", kind.name()));
    }
    let first = index.shape(&format!("{}input_blocks.0.0.weight", kind::UNET)).unwrap_or_default();
    let in_channels = first.get(1).copied().unwrap_or_default();
    if ![4, 9].contains(&in_channels) {
        return refuse(format!("its UNet reads {in_channels} channels; 4 or, for inpainting, 9 can be used"));
    }
    let family = match family(index) {
        Ok(family) => family,
        Err(reason) => return refuse(reason),
    };
    if index.get("edm_mean").is_some() || index.get("edm_vpred.sigma_max").is_some() {
        return refuse("it was trained with EDM's noise levels, which are not implemented".into());
    }
    Ok(Recognised {
        family,
        in_channels,
        prediction: prediction(index, family, in_channels),
        zero_terminal_snr: index.get("ztsnr").is_some(),
    })
}

fn family(index: &TensorIndex) -> Result<Family, String> {
    let any = |prefix: &str| index.iter().any(|(name, _)| name.starts_with(prefix));
    if any("conditioner.embedders.1.") || any("conditioner.embedders.0.transformer.") {
        return Ok(Family::Sdxl);
    }
    if any("conditioner.embedders.0.model.") {
        return Ok(Family::SdxlRefiner);
    }
    if any("cond_stage_model.model.") {
        return Ok(Family::Sd2);
    }
    if any("cond_stage_model.transformer.") {
        return Ok(Family::Sd1);
    }
    // Files without text encoders: by the width of the text states.
    let width = index
        .iter()
        .find(|(name, _)| name.starts_with(kind::UNET) && name.ends_with("attn2.to_k.weight"))
        .and_then(|(_, location)| location.shape.get(1).copied());
    match width {
        Some(768) => Ok(Family::Sd1),
        Some(1024) => Ok(Family::Sd2),
        Some(2048) => Ok(Family::Sdxl),
        Some(1280) => Ok(Family::SdxlRefiner),
        other => Err(format!(
            "it holds no text encoder, and its cross-attention reads states of width {other:?}; SD 1.x has 768, SD 2.x \
             1024, SDXL 2048, its refiner 1280"
        )),
    }
}

fn prediction(index: &TensorIndex, family: Family, in_channels: usize) -> Prediction {
    // What the writer says counts first: the `modelspec` convention, then the mark of SDXL models that predict v.
    match index.metadata("modelspec.prediction_type") {
        Some("v" | "v_prediction") => return Prediction::V,
        Some("epsilon") => return Prediction::Epsilon,
        _ => {}
    }
    if index.get("v_pred").is_some() {
        return Prediction::V;
    }
    // Of SD 2.x those for inpainting predict the noise.
    let spread = (family == Family::Sd2 && in_channels == 4).then(|| spread(index, VELOCITY_MARK)).flatten();
    match spread {
        Some(spread) if spread > VELOCITY_SPREAD => Prediction::V,
        _ => Prediction::Epsilon,
    }
}

/// The standard deviation of a tensor's values.
fn spread(index: &TensorIndex, key: &str) -> Option<f64> {
    let location = index.get(key)?;
    let bytes = index.bytes(location);
    let values: Vec<f64> = match location.dtype {
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        Dtype::F16 => {
            bytes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f64()).collect()
        }
        Dtype::BF16 => {
            bytes.as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f64()).collect()
        }
        _ => return None,
    };
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    Some((values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt())
}
