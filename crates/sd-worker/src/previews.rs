//! Pictures on the way, for the commands that draw: the newest one in a file.

use std::path::PathBuf;

use clap::Args;
use operations_contract::{ImageFormat, Preview, PreviewMethod};

use crate::exit::Failure;
use crate::output::OutputFiles;

/// Which pictures on the way are made.
#[derive(Debug, Args)]
pub(crate) struct PreviewArgs {
    /// Write what the picture looks like so far to this file (.jpg), each time over the last one.
    #[arg(long, env = "SD_WORKER_PREVIEW", value_name = "FILE")]
    preview: Option<PathBuf>,
    /// After every so many steps, 1 to 150.
    #[arg(long, env = "SD_WORKER_PREVIEW_EVERY", requires = "preview", value_name = "STEPS",
          default_value_t = Preview::default().every)]
    preview_every: u32,
    /// How: latent_rgb (coarse, costs nothing), taesd (by --preview-vae) or vae (exact and slow).
    #[arg(long, env = "SD_WORKER_PREVIEW_METHOD", requires = "preview", value_name = "METHOD",
          default_value_t = Preview::default().method)]
    preview_method: PreviewMethod,
    /// The longer side at most, 16 to 1024 pixels.
    #[arg(long, env = "SD_WORKER_PREVIEW_SIDE", requires = "preview", value_name = "PIXELS",
          default_value_t = Preview::default().max_side)]
    preview_side: u32,
}

/// The file of previews.
#[derive(Debug)]
pub(crate) struct PreviewFile(PathBuf);

impl PreviewArgs {
    /// What a request says about it.
    pub(crate) fn request(&self) -> Option<Preview> {
        let Self { preview_every: every, preview_method: method, preview_side: max_side, .. } = *self;
        self.preview.is_some().then_some(Preview { every, method, max_side })
    }

    /// Where they go, tried before anything is computed.
    pub(crate) fn file(&self) -> Result<Option<PreviewFile>, Failure> {
        let Some(path) = &self.preview else { return Ok(None) };
        let file = OutputFiles::reserve(path)?;
        if file.format() != ImageFormat::Jpeg {
            return Err(Failure::refused(format!(
                "preview {}: the file's ending must be .jpg or .jpeg",
                path.display()
            )));
        }
        Ok(Some(PreviewFile(path.clone())))
    }
}

impl PreviewFile {
    /// Puts this picture in the place of the last one.
    pub(crate) fn show(&self, jpeg: &[u8]) -> Result<(), Failure> {
        OutputFiles::reserve(&self.0)?.write(&[jpeg]).map(drop)
    }
}
