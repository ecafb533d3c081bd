//! Which model a command works with, where it computes, and in which numbers.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use sd_inference::MemoryLimit;
use sd_inference::machine::parse_bytes;

/// Where a model's files are, beside its name.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PlaceArgs {
    /// A folder or file whose VAE replaces the model's; or a tiny autoencoder (TAESD, for SDXL TAESDXL), which decodes in a
    /// fraction of the time, with less detail.
    #[arg(long, env = "SD_WORKER_VAE", value_name = "PATH")]
    pub(crate) vae: Option<String>,
    /// A folder or file whose UNet replaces the model's: models for few steps are often published as a UNet alone.
    #[arg(long, env = "SD_WORKER_UNET", value_name = "PATH")]
    pub(crate) unet: Option<String>,
    /// For a single file: a model folder whose configurations and tokenizers are used, and its parts where the file lacks
    /// them [default: those of the file's family].
    #[arg(long, env = "SD_WORKER_MODEL_CONFIG", value_name = "ID|PATH")]
    pub(crate) model_config: Option<String>,
    /// A JSON file with names of models, which win over the built-in ones.
    #[arg(long, env = "SD_WORKER_MODELS_FILE", value_name = "FILE")]
    pub(crate) models_file: Option<PathBuf>,
}

/// Which model to load, and where.
#[derive(Debug, Clone, Args)]
pub(crate) struct ModelArgs {
    /// `demo`, a folder in the diffusers layout, a single safetensors file in the original naming, or a model in the
    /// hub cache (`owner/name`, `sd15`, `sdxl`, ...). `serve` takes several: the first is the default. In the environment,
    /// several are separated by `;`.
    #[arg(long, visible_alias = "model-path", env = "SD_WORKER_MODEL", default_value = crate::demo::NAME,
          value_name = "ID|PATH", value_delimiter = ';')]
    pub(crate) model: Vec<String>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Where to compute: `cpu`, `cuda`, `cuda:N` or `metal`.
    #[arg(long, env = "SD_WORKER_DEVICE", default_value = "cpu")]
    pub(crate) device: DeviceName,
    /// The number format of the weights.
    #[arg(long, env = "SD_WORKER_DTYPE", value_enum, default_value_t = DtypeName::Auto)]
    pub(crate) dtype: DtypeName,
    /// How much memory model and work may take on the CPU: bytes, `1.5GB`, `2GiB`, or `off` for no limit [default: what
    /// the machine has left].
    #[arg(long, env = "SD_WORKER_MEMORY_LIMIT", value_name = "BYTES|off", value_parser = memory_limit)]
    pub(crate) memory_limit: Option<MemoryLimit>,
    /// When the VAE decodes in tiles: less memory, and a picture that differs a little.
    #[arg(long, env = "SD_WORKER_VAE_TILING", value_enum, default_value_t = TilingName::Auto)]
    pub(crate) vae_tiling: TilingName,
    /// A textual inversion (.safetensors), which prompts then call by the file's name without its ending. May be repeated.
    #[arg(long, env = "SD_WORKER_EMBEDDING", value_name = "FILE")]
    pub(crate) embedding: Vec<PathBuf>,
    /// A folder of textual inversions; those that do not fit the model are left out.
    #[arg(long, env = "SD_WORKER_EMBEDDINGS_DIR", value_name = "FOLDER")]
    pub(crate) embeddings_dir: Option<PathBuf>,
    /// A tiny autoencoder for previews by the method `taesd`: a folder or safetensors file of TAESD, for SDXL TAESDXL.
    #[arg(long, env = "SD_WORKER_PREVIEW_VAE", value_name = "PATH")]
    pub(crate) preview_vae: Option<PathBuf>,
    /// A network of the ESRGAN family (.safetensors) that second passes and the operation image_upscale enlarge with.
    #[arg(long, env = "SD_WORKER_UPSCALER", value_name = "FILE")]
    pub(crate) upscaler: Option<PathBuf>,
    /// A model that may take over from this one late in a run: SDXL's refiner, or another of the same family.
    #[arg(long, env = "SD_WORKER_REFINER", value_name = "ID|PATH")]
    pub(crate) refiner: Option<String>,
    /// A folder with LoRA files (.safetensors) that can be asked for by their names without the ending.
    #[arg(long, env = "SD_WORKER_LORA_DIR", value_name = "FOLDER")]
    pub(crate) lora_dir: Option<PathBuf>,
}

impl ModelArgs {
    /// The model that is meant where only one can be: the first.
    pub(crate) fn name(&self) -> &str {
        self.model.first().map_or(crate::demo::NAME, String::as_str)
    }
}

pub(super) fn memory_limit(text: &str) -> Result<MemoryLimit, String> {
    match text {
        "off" => Ok(MemoryLimit::Off),
        bytes => parse_bytes(bytes).map(MemoryLimit::Bytes),
    }
}

/// When the VAE decodes in tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TilingName {
    /// When a picture at once would take more than 4 GiB, or than three quarters of the memory there is.
    Auto,
    /// Whenever a picture is larger than one tile.
    Always,
    /// Never.
    Never,
}

/// A device by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceName {
    Cpu,
    Cuda(usize),
    Metal,
}

impl std::str::FromStr for DeviceName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name.split_once(':') {
            None if name == "cpu" => Ok(Self::Cpu),
            None if name == "cuda" => Ok(Self::Cuda(0)),
            None if name == "metal" => Ok(Self::Metal),
            Some(("cuda", number)) => {
                number.parse().map(Self::Cuda).map_err(|_| format!("`{number}` is no number of a GPU"))
            }
            _ => Err("known devices are cpu, cuda, cuda:N and metal".into()),
        }
    }
}

impl std::fmt::Display for DeviceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

/// A number format by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DtypeName {
    /// bf16 on a CPU that multiplies it (AMX), f32 elsewhere.
    Auto,
    /// 32 bits: exactly what the reference computes.
    F32,
    /// 16 bits with the range of f32.
    Bf16,
    /// 16 bits; GPUs only.
    F16,
}
