//! The demonstration model, compiled into the program.

use sd_inference::{EmbeddedFile, ModelFiles};

/// What requests call it.
pub(crate) const NAME: &str = "demo";

static FILES: &[EmbeddedFile] = include!(concat!(env!("OUT_DIR"), "/demo_files.rs"));

/// Its files.
pub(crate) fn files() -> ModelFiles {
    ModelFiles::Embedded { name: NAME, files: FILES }
}
