//! What can go wrong while a model is found, read or run.

use std::path::PathBuf;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model could not be read or run. Every variant about a file names it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The place given for a model holds none.
    #[error("{path}: {reason}")]
    NotAModel {
        /// The folder that was looked at.
        path: String,
        /// What is missing in it.
        reason: String,
    },
    /// A file could not be opened or read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is there but is not what its name promises: cut off, a bad header, a pickle.
    #[error("{file}: {reason}")]
    BadFile {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A JSON file does not parse, or a field has the wrong type.
    #[error("{file}: {source}")]
    Json {
        /// The file.
        file: String,
        /// The parser's message with line and column.
        source: serde_json::Error,
    },
    /// A configuration asks for something this crate does not implement.
    #[error("{file}: `{field}` is {found}, but supported is {supported}")]
    UnsupportedConfig {
        /// The configuration file.
        file: String,
        /// The field in it.
        field: String,
        /// Its value.
        found: String,
        /// What would be accepted.
        supported: String,
    },
    /// A weight that the model needs is not in its file.
    #[error("{file}: missing tensor `{key}` (expected shape {expected:?})")]
    MissingTensor {
        /// The file that should hold it.
        file: String,
        /// The tensor's full name.
        key: String,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// A weight has another shape than the configuration says.
    #[error("{file}: tensor `{key}` has shape {found:?}, expected {expected:?}")]
    WrongShape {
        /// The file.
        file: String,
        /// The tensor's full name.
        key: String,
        /// The shape the configuration asks for.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A weight is stored in a number format that is not read here.
    #[error("{file}: tensor `{key}` has dtype {found}, supported are F32, F16 and BF16")]
    UnsupportedDtype {
        /// The file.
        file: String,
        /// The tensor's full name.
        key: String,
        /// The dtype in the file.
        found: String,
    },
    /// An adapter of a form that is not read here.
    #[error("{file}: `{key}` belongs to {form}; LoRA and LoCon can be applied")]
    UnsupportedAdapter {
        /// The file.
        file: String,
        /// A tensor that tells.
        key: String,
        /// The form, such as `LoHa`.
        form: &'static str,
    },
    /// An adapter that was made for another model.
    #[error("{file}: the adapter does not fit this model: {reason}")]
    AdapterMismatch {
        /// The file.
        file: String,
        /// What does not fit, and what kind of model would.
        reason: String,
    },
    /// The tokenizer's files do not make a CLIP tokenizer.
    #[error("{file}: {reason}")]
    Tokenizer {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Whoever asked for the work no longer wants it.
    #[error("stopped by the caller")]
    Stopped,
    /// A tensor operation failed: a shape that the model cannot take, or a device error.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
