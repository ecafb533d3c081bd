//! Where a model's files come from: a folder on disk, or bytes inside the program.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use memmap2::Mmap;
use serde::de::DeserializeOwned;

use crate::assembled::AssembledFiles;
use crate::{Error, Result, json, single_file};

/// A file compiled into the program: its path inside the model folder (`unet/config.json`) and its bytes.
pub type EmbeddedFile = (&'static str, &'static [u8]);

/// The files of one model in the diffusers layout.
#[derive(Debug, Clone)]
pub enum ModelFiles {
    /// A folder on disk.
    Folder(PathBuf),
    /// A folder that was compiled into the program.
    Embedded {
        /// What error messages call it.
        name: &'static str,
        /// Every file of the folder.
        files: &'static [EmbeddedFile],
    },
    /// What looks like a folder but comes from several places, such as a single-file checkpoint.
    Assembled(Arc<AssembledFiles>),
}

impl ModelFiles {
    /// The files of the folder at `path`.
    ///
    /// # Errors
    /// [`Error::NotAModel`] when the folder does not exist or has no `model_index.json`.
    pub fn folder(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let not_a_model =
            |reason: &str| Error::NotAModel { path: path.display().to_string(), reason: reason.into() };
        if !path.exists() {
            return Err(not_a_model("no such file or folder"));
        }
        if !path.is_dir() {
            return Err(not_a_model("it is a file; a folder in the diffusers layout is expected"));
        }
        if !path.join("model_index.json").is_file() {
            return Err(not_a_model("it has no model_index.json"));
        }
        Ok(Self::Folder(path))
    }

    /// The model at `path`: a folder in the diffusers layout, or a single-file checkpoint in the original naming.
    ///
    /// A file carries neither configurations nor tokenizers. Its family's usual ones are built in, and a vocabulary is
    /// looked for in the hub cache; what the folder `config` has of both wins, and parts that the file lacks are taken
    /// from there. For a folder `config` changes nothing.
    ///
    /// # Errors
    /// [`Error::NotAModel`] and [`Error::BadFile`] say what is there instead.
    pub fn open(path: impl Into<PathBuf>, config: Option<ModelFiles>) -> Result<Self> {
        let path = path.into();
        if path.is_file() { single_file::open(&path, config) } else { Self::folder(path) }
    }

    /// The same model with the VAE at `path`: a folder, or a file in the diffusers or the original naming. A file
    /// carries no configuration; the model's own then counts. It may be a tiny autoencoder
    /// ([`AutoencoderTiny`](crate::taesd::AutoencoderTiny)).
    ///
    /// # Errors
    /// [`Error::NotAModel`] and [`Error::BadFile`] when there is no VAE at `path`.
    pub fn with_vae(self, path: impl AsRef<Path>) -> Result<Self> {
        single_file::with_vae(self, path.as_ref())
    }

    /// The same model with the UNet at `path`: a folder, or a file in the diffusers or the original naming. A file carries
    /// no configuration; the model's own then counts, but for the channels of the input and the embedding of the guidance
    /// scale, which the tensors tell.
    ///
    /// # Errors
    /// [`Error::NotAModel`] and [`Error::BadFile`] when there is no UNet at `path`, or one for another family.
    pub fn with_unet(self, path: impl AsRef<Path>) -> Result<Self> {
        single_file::with_unet(self, path.as_ref())
    }

    /// What error messages call the model.
    pub fn name(&self) -> String {
        match self {
            Self::Folder(root) => root.display().to_string(),
            Self::Embedded { name, .. } => (*name).to_owned(),
            Self::Assembled(assembled) => assembled.name().to_owned(),
        }
    }

    /// What error messages call the file `relative`.
    pub fn describe(&self, relative: &str) -> String {
        match self {
            Self::Folder(root) => root.join(relative).display().to_string(),
            Self::Embedded { name, .. } => format!("{name}:{relative}"),
            Self::Assembled(assembled) => assembled.describe(relative),
        }
    }

    /// Whether the file `relative` exists.
    pub fn contains(&self, relative: &str) -> bool {
        match self {
            Self::Folder(root) => root.join(relative).is_file(),
            Self::Embedded { files, .. } => files.iter().any(|(path, _)| *path == relative),
            Self::Assembled(assembled) => assembled.contains(relative),
        }
    }

    /// The bytes of `relative`, mapped when it lies on disk.
    ///
    /// # Errors
    /// [`Error::Io`] when the file is missing or cannot be read.
    pub fn bytes(&self, relative: &str) -> Result<FileBytes> {
        match self {
            Self::Folder(root) => FileBytes::map(&root.join(relative)),
            Self::Embedded { files, .. } => match files.iter().find(|(path, _)| *path == relative) {
                Some((_, bytes)) => Ok(FileBytes::Static(bytes)),
                None => Err(Error::Io {
                    path: PathBuf::from(self.describe(relative)),
                    source: std::io::Error::from(std::io::ErrorKind::NotFound),
                }),
            },
            Self::Assembled(assembled) => assembled.bytes(relative),
        }
    }

    /// When the file `relative` was last written, where the system tells.
    pub(crate) fn modified(&self, relative: &str) -> Option<SystemTime> {
        match self {
            Self::Folder(root) => root.join(relative).metadata().ok()?.modified().ok(),
            Self::Embedded { .. } | Self::Assembled(_) => None,
        }
    }

    /// Reads and parses the JSON file `relative`.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::Json`] when it does not parse as `T`.
    pub fn json<T: DeserializeOwned>(&self, relative: &str) -> Result<T> {
        let bytes = self.bytes(relative)?;
        json::from_slice(bytes.as_slice())
            .map_err(|source| Error::Json { file: self.describe(relative), source })
    }
}

/// The content of one file: a shared memory map, or static bytes.
#[derive(Debug, Clone)]
pub enum FileBytes {
    /// A mapped file; clones share the map.
    Mapped(Arc<Mmap>),
    /// Bytes of the program itself.
    Static(&'static [u8]),
    /// Bytes that were made in memory.
    Shared(Arc<[u8]>),
    /// An empty file, which cannot be mapped.
    Empty,
}

impl FileBytes {
    #[allow(unsafe_code)]
    pub(crate) fn map(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.len() == 0 {
            return Ok(Self::Empty);
        }
        // SAFETY: the map is read-only. Model files are not written while the worker runs; one that another
        // process cuts short under us would fault, as it does for every program that maps its weights.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(Self::Mapped(Arc::new(map)))
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(bytes) => bytes,
            Self::Shared(bytes) => bytes,
            Self::Empty => &[],
        }
    }
}
