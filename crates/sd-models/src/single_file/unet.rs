//! UNets: those of checkpoints, and files and folders that hold nothing else, as models for few steps are published.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{keys, kind, part_folder, read};
use crate::assembled::{AssembledFiles, PartSource, Text};
use crate::files::FileBytes;
use crate::single_file::FileKind;
use crate::tensor_index::TensorIndex;
use crate::unet::UnetConfig;
use crate::{Error, ModelFiles, Result, inspect, json};

/// Where a model has the UNet's configuration.
const CONFIG: &str = "unet/config.json";

/// The UNet's tensors, of which the original names begin with `prefix`, under the names of diffusers.
pub(super) fn tensors(index: &TensorIndex, prefix: &str) -> TensorIndex {
    let layers = keys::unet_layers(|key| index.get(&format!("{prefix}{key}")).is_some());
    index.renamed(|key, location| {
        let name = key.strip_prefix(prefix).and_then(|key| keys::unet(key, layers));
        name.map(|name| (name, location.clone())).into_iter().collect()
    })
}

/// `files` with the UNet at `path`: a folder or file in the diffusers layout, a whole model, or a file in the original
/// naming.
pub(crate) fn with_unet(files: ModelFiles, path: &Path) -> Result<ModelFiles> {
    let own: UnetConfig = files.json(CONFIG)?;
    let refuse = |reason: String| Error::NotAModel { path: path.display().to_string(), reason };
    let (text, source) = match path.is_dir() {
        true => part_folder(path, "unet")?,
        false => {
            let tensors = alone(read(path)?)
                .map_err(|found| refuse(format!("no UNet is in it; by its tensors it is: {found}")))?;
            let label = format!("{} (for the UNet {})", files.describe(CONFIG), path.display());
            let bytes = fitted(files.json(CONFIG)?, &tensors);
            let text = Text { label, bytes: FileBytes::Shared(bytes.into()) };
            if let Some(width) = text_width(&tensors).filter(|width| *width != own.text_width()) {
                return Err(refuse(mismatch(width, own.text_width())));
            }
            (text, PartSource::Tensors(Arc::new(tensors)))
        }
    };
    let config: UnetConfig = json::from_slice(text.bytes.as_slice())
        .map_err(|source| Error::Json { file: text.label.clone(), source })?;
    if config.text_width() != own.text_width() {
        return Err(refuse(mismatch(config.text_width(), own.text_width())));
    }
    let name = files.name();
    let mut assembled = AssembledFiles::over(Some(files), name);
    assembled.add_text(CONFIG, text);
    assembled.add_part("unet", source);
    Ok(ModelFiles::Assembled(Arc::new(assembled)))
}

/// The tensors of a UNet in a file of whatever naming, or what the file is instead.
fn alone(index: TensorIndex) -> std::result::Result<TensorIndex, &'static str> {
    let found = match FileKind::of(&index) {
        FileKind::Checkpoint => tensors(&index, kind::UNET),
        FileKind::Unet if index.get("conv_in.weight").is_some() => return Ok(index),
        FileKind::Unet => tensors(&index, ""),
        other => return Err(other.name()),
    };
    Ok(found)
}

/// A model's configuration, for tensors that may differ from its UNet in what they see: the channels of their input, and
/// the guidance scale.
fn fitted(mut config: Value, tensors: &TensorIndex) -> Vec<u8> {
    let columns = |key: &str| tensors.shape(key).and_then(|shape| shape.get(1)).copied();
    if let Some(channels) = columns("conv_in.weight") {
        config["in_channels"] = json!(channels);
    }
    config["time_cond_proj_dim"] = json!(columns("time_embedding.cond_proj.weight"));
    config.to_string().into_bytes()
}

/// The width of the text states that the cross-attention reads.
fn text_width(tensors: &TensorIndex) -> Option<usize> {
    let keys = tensors.iter().find(|(name, _)| name.ends_with("attn2.to_k.weight"));
    keys.and_then(|(_, location)| location.shape.get(1).copied())
}

fn mismatch(found: usize, wanted: usize) -> String {
    let family = |width| {
        inspect::family_of_width(width).map_or(String::new(), |family| format!(" ({})", family.name()))
    };
    format!(
        "its UNet reads text states of width {found}{}; the model's text encoders give {wanted}{}",
        family(found),
        family(wanted)
    )
}
