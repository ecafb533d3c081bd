//! A model put together from several places: a single file, built-in configurations, parts of other folders.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::files::FileBytes;
use crate::tensor_index::TensorIndex;
use crate::{Error, ModelFiles, Result};

/// The parts of a pipeline that have weights, by the names of their folders.
pub(crate) const PARTS: [&str; 4] = ["text_encoder", "text_encoder_2", "unet", "vae"];

/// Files and weights that look like one folder in the diffusers layout.
#[derive(Debug, Clone)]
pub struct AssembledFiles {
    name: String,
    /// Small files by their path in the folder.
    texts: BTreeMap<String, Text>,
    /// Weights by the name of their folder.
    parts: BTreeMap<String, PartSource>,
    /// Where everything else comes from.
    base: Option<ModelFiles>,
}

/// A small file, and what error messages call it.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    pub(crate) label: String,
    pub(crate) bytes: FileBytes,
}

/// Where a part's weights come from.
#[derive(Debug, Clone)]
pub(crate) enum PartSource {
    /// Tensors under the names that the model definitions ask for.
    Tensors(Arc<TensorIndex>),
    /// The folder `folder` of other files.
    Files { files: ModelFiles, folder: String },
}

impl AssembledFiles {
    /// Nothing but what `base` holds. Error messages call it `name`.
    pub(crate) fn over(base: Option<ModelFiles>, name: String) -> Self {
        Self { name, texts: BTreeMap::new(), parts: BTreeMap::new(), base }
    }

    pub(crate) fn add_text(&mut self, relative: &str, text: Text) {
        self.texts.insert(relative.to_owned(), text);
    }

    pub(crate) fn add_part(&mut self, folder: &str, part: PartSource) {
        self.parts.insert(folder.to_owned(), part);
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn describe(&self, relative: &str) -> String {
        match (self.texts.get(relative), &self.base) {
            (Some(text), _) => text.label.clone(),
            (None, Some(base)) if base.contains(relative) => base.describe(relative),
            _ => format!("{}:{relative}", self.name),
        }
    }

    pub(crate) fn contains(&self, relative: &str) -> bool {
        self.texts.contains_key(relative) || self.base.as_ref().is_some_and(|base| base.contains(relative))
    }

    pub(crate) fn bytes(&self, relative: &str) -> Result<FileBytes> {
        if let Some(text) = self.texts.get(relative) {
            return Ok(text.bytes.clone());
        }
        match &self.base {
            Some(base) if base.contains(relative) => base.bytes(relative),
            _ if relative.starts_with("tokenizer") => Err(Error::NotAModel {
                path: self.name.clone(),
                reason: "a single file carries no tokenizer, and the hub cache holds none of CLIP; fetch it once with \
                         `sd-worker models pull clip-tokenizer`, or name a model folder that has one (--model-config)"
                    .into(),
            }),
            Some(base) => base.bytes(relative),
            None => Err(Error::Io {
                path: PathBuf::from(self.describe(relative)),
                source: std::io::Error::from(std::io::ErrorKind::NotFound),
            }),
        }
    }

    /// The weights of the part in `folder`.
    ///
    /// # Errors
    /// [`Error::NotAModel`] when it is nowhere.
    pub(crate) fn part(&self, folder: &str) -> Result<PartSource> {
        if let Some(part) = self.parts.get(folder) {
            return Ok(part.clone());
        }
        match &self.base {
            // Only a base that has the part can say what is wrong with it.
            Some(base) if base.contains(&format!("{folder}/config.json")) => {
                Ok(PartSource::Files { files: base.clone(), folder: folder.to_owned() })
            }
            _ => Err(Error::NotAModel {
                path: self.name.clone(),
                reason: match folder {
                    "vae" => "it holds no VAE; name one (--vae)".into(),
                    part => format!("it holds no {part}; name a model folder that does (--model-config)"),
                },
            }),
        }
    }
}
