//! The command line of `sd-worker models`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use sd_inference::DType;

use crate::args::PlaceArgs;

#[derive(Debug, Args)]
pub(crate) struct ModelsArgs {
    #[command(subcommand)]
    pub(crate) command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// List the models in the hub cache and the known names.
    List(ListArgs),
    /// Download a model into the hub cache.
    Pull(PullArgs),
    /// Tell what a model, or a file with a part of one, holds and how much memory it needs.
    Inspect(InspectArgs),
    /// Write a model as a folder, in another number format if wanted.
    Convert(ConvertArgs),
    /// Remove a model from the hub cache.
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// A JSON file with names of models, which win over the built-in ones.
    #[arg(long, env = "SD_WORKER_MODELS_FILE", value_name = "FILE")]
    pub(crate) models_file: Option<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long, env = "SD_WORKER_JSON")]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// A known name (`sd15`, `sdxl`, ...) or a repository `owner/name`.
    #[arg(env = "SD_WORKER_MODEL")]
    pub(crate) model: String,
    /// Files of the repository to fetch instead of what the model needs.
    #[arg(value_name = "FILE", env = "SD_WORKER_FILES", value_delimiter = ',')]
    pub(crate) files: Vec<String>,
    /// The branch, tag or commit.
    #[arg(long, env = "SD_WORKER_REVISION", default_value = "main")]
    pub(crate) revision: String,
    /// Weights in full precision, where the repository also has them in half.
    #[arg(long, env = "SD_WORKER_FULL")]
    pub(crate) full: bool,
    /// A JSON file with names of models, which win over the built-in ones.
    #[arg(long, env = "SD_WORKER_MODELS_FILE", value_name = "FILE")]
    pub(crate) models_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A folder, a safetensors file, a known name or a repository in the hub cache.
    #[arg(env = "SD_WORKER_MODEL")]
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Print one JSON object instead of text.
    #[arg(long, env = "SD_WORKER_JSON")]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// A folder, a single file, a known name or a repository in the hub cache.
    #[arg(env = "SD_WORKER_MODEL")]
    pub(crate) model: String,
    /// The folder to write. It must not exist or be empty.
    #[arg(env = "SD_WORKER_OUTPUT", value_name = "FOLDER")]
    pub(crate) output: PathBuf,
    /// The number format of the weights [default: as they are].
    #[arg(long, env = "SD_WORKER_DTYPE", value_enum)]
    pub(crate) dtype: Option<StoredDtype>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// A known name or a repository in the hub cache.
    #[arg(env = "SD_WORKER_MODEL")]
    pub(crate) model: String,
    /// Do not ask.
    #[arg(long, env = "SD_WORKER_YES")]
    pub(crate) yes: bool,
    /// A JSON file with names of models, which win over the built-in ones.
    #[arg(long, env = "SD_WORKER_MODELS_FILE", value_name = "FILE")]
    pub(crate) models_file: Option<PathBuf>,
}

/// A number format that files can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoredDtype {
    /// 32 bits.
    F32,
    /// 16 bits with the range of f32 and less precision.
    Bf16,
    /// 16 bits, up to 65504.
    F16,
}

impl From<StoredDtype> for DType {
    fn from(dtype: StoredDtype) -> Self {
        match dtype {
            StoredDtype::F32 => Self::F32,
            StoredDtype::Bf16 => Self::BF16,
            StoredDtype::F16 => Self::F16,
        }
    }
}
