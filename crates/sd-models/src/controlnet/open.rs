//! ControlNets on disk: a folder in the diffusers layout, or a single file in one of two.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device};

use super::names::OriginalNames;
use super::{ControlNetConfig, ControlNetModel};
use crate::tensor_index::{TensorFile, TensorIndex};
use crate::unet::UnetConfig;
use crate::{Error, FileBytes, ModelFiles, Result, Weights};

/// The name of the weight files in a folder.
const STEM: &str = "diffusion_pytorch_model";

/// A ControlNet whose headers were read, and whose weights were not.
pub struct OpenedControlNet {
    weights: Weights,
    /// What the folder's `config.json` says; a single file has none.
    config: Option<ControlNetConfig>,
    /// What error messages call where the configuration comes from.
    file: String,
}

impl OpenedControlNet {
    /// Opens the folder or `.safetensors` file at `path`.
    ///
    /// A single file has tensors with the names of diffusers or of the first release (`control_model.input_blocks...`).
    ///
    /// # Errors
    /// [`Error::NotAModel`] when neither is there, [`Error::Json`] and [`Error::BadFile`] when something is broken.
    pub fn open(path: &Path, device: &Device, dtype: DType) -> Result<Self> {
        let not_a_net =
            |reason: &str| Error::NotAModel { path: path.display().to_string(), reason: reason.into() };
        if path.is_dir() {
            let (files, folder) = folder(path);
            let config = format!("{folder}/config.json");
            if !files.contains(&config) {
                return Err(not_a_net("it has no config.json of a ControlNet"));
            }
            return Ok(Self {
                weights: Weights::open(&files, &folder, STEM, device, dtype)?,
                config: Some(files.json(&config)?),
                file: files.describe(&config),
            });
        }
        if !path.is_file() {
            return Err(not_a_net("no such file or folder"));
        }
        let file = path.display().to_string();
        let stored =
            TensorIndex::read(vec![TensorFile { bytes: FileBytes::map(path)?, name: file.clone() }])?;
        let index = match OriginalNames::recognise(|name| stored.get(name).is_some()) {
            Some(names) => stored.renamed(|name, tensor| {
                names.name(name).map(|name| (name, tensor.clone())).into_iter().collect()
            }),
            None => stored,
        };
        Ok(Self { weights: Weights::from_index(Arc::new(index), device, dtype), config: None, file })
    }

    /// Its configuration, checked: the folder's own, or for a single file that of `unet`, which it is a copy of.
    ///
    /// # Errors
    /// [`Error::BadFile`] when a single file is no ControlNet; as [`ControlNetConfig::check`].
    pub fn config(&self, unet: &UnetConfig) -> Result<ControlNetConfig> {
        let config = match &self.config {
            Some(config) => config.clone(),
            None => ControlNetConfig::like(unet, &self.weights, &self.file)?,
        };
        let config = config.with_way_up();
        config.check(&self.file)?;
        Ok(config)
    }

    /// What error messages call the file that its configuration comes from.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The memory that it will hold once it is loaded, in bytes.
    pub fn loaded_bytes(&self) -> u64 {
        self.weights.loaded_bytes()
    }

    /// Loads it with the configuration that [`OpenedControlNet::config`] gave.
    ///
    /// # Errors
    /// As [`ControlNetModel::load`].
    pub fn load(&self, config: ControlNetConfig) -> Result<ControlNetModel> {
        ControlNetModel::load(&self.weights, config, &self.file)
    }
}

/// The folder `path` as a part of the one that it lies in.
fn folder(path: &Path) -> (ModelFiles, String) {
    match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
        (Some(parent), Some(name)) => (ModelFiles::Folder(parent.into()), name.to_owned()),
        _ => (ModelFiles::Folder(PathBuf::from(path)), ".".into()),
    }
}
