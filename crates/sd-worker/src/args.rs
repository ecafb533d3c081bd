//! The command line. Every flag is also an environment variable `SD_WORKER_...`.

pub(crate) mod safety;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use operations_contract::{
    Extend, GuidanceInterval, Refiner, RngKind, Sampler, Schedule, Tiling, TimestepSpacing, Upscaler,
};
use sd_inference::machine::parse_bytes;
use sd_inference::{MemoryLimit, RandomModel};

use crate::config::{ConfigArgs, FileArgs};
use crate::control::{ControlArgs, ControlNetArgs};
use crate::faces::FacesArgs;
use crate::jobs::args::JobsArgs;
use crate::life::LifeArgs;
use crate::loras::LoraArg;
use crate::model_set::ModelSetup;
use crate::models::args::ModelsArgs;
use crate::pool::PoolArgs;
use crate::previews::PreviewArgs;
use crate::registration::args::SupervisorArgs;
use crate::store::StoreArgs;
use crate::traces::TracesArgs;
use safety::SafetyArgs;

/// More threads than any machine has cores.
const MAX_THREADS: i64 = 1024;

/// Stable Diffusion on this machine: pictures from the command line, and a service that makes them.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done; 1 the work failed; 2 the request cannot be done as asked; 130 interrupted.\n\
    Every flag is also an environment variable: --guidance-scale is SD_WORKER_GUIDANCE_SCALE. Those of `serve` are also keys\n\
    of a configuration file: see `sd-worker config --help`."
)]
pub(crate) struct Cli {
    /// Threads to compute with [default: one for each core that this process may use].
    #[arg(long, global = true, env = "SD_WORKER_THREADS", value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=MAX_THREADS))]
    pub(crate) threads: Option<u16>,
    /// Which log lines there are, such as `debug` or `sd_engine=trace` [default: `info` for a service, else `warn`].
    #[arg(long, global = true, env = "SD_WORKER_LOG", value_name = "FILTER", value_parser = crate::logging::filter)]
    pub(crate) log: Option<String>,
    /// How log lines look.
    #[arg(long, global = true, env = "SD_WORKER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make pictures from a text.
    #[command(allow_negative_numbers = true)]
    Generate(GenerateArgs),
    /// Make pictures from a picture and a text.
    #[command(allow_negative_numbers = true)]
    Transform(TransformArgs),
    /// Redraw what a mask marks in a picture.
    #[command(allow_negative_numbers = true)]
    Inpaint(InpaintArgs),
    /// Serve the jobs API over HTTP.
    Serve(ServeArgs),
    /// Print what `serve` is told by file, environment and flags, and which of them says it.
    Config(ConfigArgs),
    /// Submit jobs to a worker elsewhere, list, watch, cancel and fetch them.
    Jobs(JobsArgs),
    /// Tell how a picture was made: the command that makes it again.
    Inspect(InspectArgs),
    /// Enlarge a picture with a network of the ESRGAN family.
    Upscale(UpscaleArgs),
    /// Measure a model on this machine.
    Bench(BenchArgs),
    /// List, download, inspect, convert and remove models.
    Models(ModelsArgs),
    /// Tell what this build and this machine can do.
    Info,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

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

fn memory_limit(text: &str) -> Result<MemoryLimit, String> {
    match text {
        "off" => Ok(MemoryLimit::Off),
        bytes => parse_bytes(bytes).map(MemoryLimit::Bytes),
    }
}

fn guidance_interval(text: &str) -> Result<GuidanceInterval, String> {
    let number = |text: &str| text.trim().parse::<f64>().map_err(|_| format!("`{text}` is no number"));
    let (start, end) = text.split_once(',').ok_or("two numbers with a comma between them are wanted")?;
    Ok(GuidanceInterval { start: number(start)?, end: number(end)? })
}

/// Four numbers of pixels.
fn sides(text: &str) -> Result<[u32; 4], String> {
    let sides: Result<Vec<u32>, _> = text.split(',').map(|side| side.trim().parse()).collect();
    sides
        .ok()
        .and_then(|sides| sides.try_into().ok())
        .ok_or_else(|| "must be four numbers of pixels, as 0,0,64,0: left, top, right, bottom".to_owned())
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

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// What the picture should show.
    #[arg(env = "SD_WORKER_PROMPT")]
    pub(crate) prompt: String,
    /// What it should not show.
    #[arg(long, env = "SD_WORKER_NEGATIVE_PROMPT", default_value = "", hide_default_value = true)]
    pub(crate) negative_prompt: String,
    /// What the second text encoder reads instead of the prompt, for models with two (SDXL).
    #[arg(long, env = "SD_WORKER_PROMPT_2", value_name = "PROMPT")]
    pub(crate) prompt_2: Option<String>,
    /// What it reads instead of the negative prompt.
    #[arg(long, env = "SD_WORKER_NEGATIVE_PROMPT_2", value_name = "PROMPT")]
    pub(crate) negative_prompt_2: Option<String>,
    /// Take the prompts as they are: no weights, BREAK or wildcards, cut where the text encoder ends.
    #[arg(long, env = "SD_WORKER_NO_PROMPT_WEIGHTING")]
    pub(crate) no_prompt_weighting: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Width in pixels [default: the model's own].
    #[arg(long, env = "SD_WORKER_WIDTH")]
    pub(crate) width: Option<u32>,
    /// Height in pixels [default: the model's own].
    #[arg(long, env = "SD_WORKER_HEIGHT")]
    pub(crate) height: Option<u32>,
    /// Denoising steps [default: the model's own].
    #[arg(long, env = "SD_WORKER_STEPS")]
    pub(crate) steps: Option<u32>,
    /// How strongly the prompt pulls; 1 turns guidance off [default: the model's own].
    #[arg(long, env = "SD_WORKER_GUIDANCE_SCALE")]
    pub(crate) guidance_scale: Option<f64>,
    /// How far the guided answer is brought back to the spread of the unguided one, 0 to 1 [default: 0].
    #[arg(long, env = "SD_WORKER_GUIDANCE_RESCALE")]
    pub(crate) guidance_rescale: Option<f64>,
    /// The part of the run in which guidance counts, as two numbers from 0 to 1 [default: 0,1].
    #[arg(long, env = "SD_WORKER_GUIDANCE_INTERVAL", value_name = "START,END", value_parser = guidance_interval)]
    pub(crate) guidance_interval: Option<GuidanceInterval>,
    /// Seed of the first picture; picture k has seed + k [default: drawn].
    #[arg(long, env = "SD_WORKER_SEED")]
    pub(crate) seed: Option<u64>,
    /// The solver: euler, euler_a, heun, dpm2, dpm2_a, lms, ddim, ddpm, pndm, dpmpp_2m, dpmpp_2m_sde, dpmpp_sde,
    /// dpmpp_2s_a, dpmpp_3m_sde, unipc, deis, lcm or tcd [default: the model's own].
    #[arg(long, env = "SD_WORKER_SAMPLER")]
    pub(crate) sampler: Option<Sampler>,
    /// How noise levels are spread: normal, karras, exponential, beta, sgm_uniform, simple, ddim_uniform or
    /// align_your_steps [default: the model's own].
    #[arg(long, env = "SD_WORKER_SCHEDULE")]
    pub(crate) schedule: Option<Schedule>,
    /// How the steps are laid over the timesteps of the training: linspace, leading or trailing [default: the model's own].
    #[arg(long, env = "SD_WORKER_TIMESTEP_SPACING")]
    pub(crate) timestep_spacing: Option<TimestepSpacing>,
    /// How much fresh noise is mixed in, 0 to 1: ddim and tcd (0 by default), dpmpp_2s_a and dpmpp_3m_sde (1).
    #[arg(long, env = "SD_WORKER_ETA")]
    pub(crate) eta: Option<f64>,
    /// How many pictures.
    #[arg(long, env = "SD_WORKER_NUM_IMAGES", default_value_t = 1)]
    pub(crate) num_images: u32,
    /// Whose noise: torch_cpu gives the pictures that diffusers gives on the CPU.
    #[arg(long, env = "SD_WORKER_RNG", default_value_t = RngKind::TorchCpu)]
    pub(crate) rng: RngKind,
    /// How many of the text encoder's last layers to leave out.
    #[arg(long, env = "SD_WORKER_CLIP_SKIP", default_value_t = 0)]
    pub(crate) clip_skip: u32,
    /// Which edges of the picture meet, so that it can be laid beside itself: x (left and right), y (top and bottom) or
    /// both.
    #[arg(long, env = "SD_WORKER_TILING", value_enum, value_name = "AXES")]
    pub(crate) tiling: Option<Axes>,
    /// Enlarge the picture's sides by so much, up to 4, and redraw it in part in a second pass.
    #[arg(long, env = "SD_WORKER_HIRES_SCALE", value_name = "FACTOR")]
    pub(crate) hires_scale: Option<f64>,
    /// What the second pass enlarges: latent (soft), lanczos (the decoded picture) or network (the same, by --upscaler).
    #[arg(long, env = "SD_WORKER_HIRES_UPSCALER", requires = "hires_scale", default_value_t = Upscaler::Latent)]
    pub(crate) hires_upscaler: Upscaler,
    /// How much the second pass redraws, over 0 and up to 1.
    #[arg(long, env = "SD_WORKER_HIRES_STRENGTH", requires = "hires_scale", default_value_t = 0.7)]
    pub(crate) hires_strength: f64,
    /// Of how many steps the second pass takes that part [default: as many as the first].
    #[arg(long, env = "SD_WORKER_HIRES_STEPS", requires = "hires_scale")]
    pub(crate) hires_steps: Option<u32>,
    /// After which share of the noise the refiner takes over, 0.01 to 0.99.
    #[arg(long, env = "SD_WORKER_REFINER_START", requires = "refiner", default_value_t = Refiner::default().start)]
    pub(crate) refiner_start: f64,
    #[command(flatten)]
    pub(crate) control: ControlArgs,
    /// A LoRA to apply: a file, or a name in --lora-dir, and its scale [default: 1]. Can be given several times.
    #[arg(long, env = "SD_WORKER_LORA", value_delimiter = ',', value_name = "NAME|FILE[:SCALE]")]
    pub(crate) lora: Vec<LoraArg>,
    #[command(flatten)]
    pub(crate) previews: PreviewArgs,
    /// The file to write: .png, .jpg or .webp. Several pictures get -1, -2, ... before the ending.
    #[arg(long, short, env = "SD_WORKER_OUTPUT", default_value = "sd-worker.png", value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Quality of a JPEG, 1 to 100.
    #[arg(long, env = "SD_WORKER_QUALITY", default_value_t = 90)]
    pub(crate) quality: u32,
    /// Leave the parameters out of the file.
    #[arg(long, env = "SD_WORKER_NO_METADATA")]
    pub(crate) no_metadata: bool,
    /// Print one JSON object instead of text and show no progress bar.
    #[arg(long, env = "SD_WORKER_JSON")]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) nets: ControlNetArgs,
    /// Address and port; port 0 takes any free one. Other than loopback needs a token.
    #[arg(long, env = "SD_WORKER_LISTEN", default_value = "127.0.0.1:8600", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// How many jobs may wait.
    #[arg(long, env = "SD_WORKER_QUEUE_CAPACITY", default_value_t = 64, value_name = "JOBS",
          value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) queue_capacity: u16,
    #[command(flatten)]
    pub(crate) pool: PoolArgs,
    #[command(flatten)]
    pub(crate) safety: SafetyArgs,
    #[command(flatten)]
    pub(crate) life: LifeArgs,
    #[command(flatten)]
    pub(crate) supervisor: SupervisorArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) faces: FacesArgs,
    #[command(flatten)]
    pub(crate) traces: TracesArgs,
    /// Models with settings of their own, which stand in the configuration file.
    #[arg(skip)]
    pub(crate) further: Vec<ModelSetup>,
}

/// What `generate` takes, and a picture to start from.
#[derive(Debug, Args)]
pub(crate) struct TransformArgs {
    #[command(flatten)]
    pub(crate) generate: GenerateArgs,
    /// The picture to start from: PNG, JPEG or WebP. The result is as large, unless --width and --height say otherwise.
    #[arg(long, env = "SD_WORKER_IMAGE", value_name = "FILE")]
    pub(crate) image: PathBuf,
    /// How much is redrawn, and which part of the steps is taken: 0 nothing, 1 all.
    #[arg(long, env = "SD_WORKER_STRENGTH", default_value_t = 0.8)]
    pub(crate) strength: f64,
}

/// What `generate` takes, a picture and a mask.
#[derive(Debug, Args)]
pub(crate) struct InpaintArgs {
    #[command(flatten)]
    pub(crate) generate: GenerateArgs,
    /// The picture: PNG, JPEG or WebP. The result is as large, unless --width and --height say otherwise.
    #[arg(long, env = "SD_WORKER_IMAGE", value_name = "FILE")]
    pub(crate) image: PathBuf,
    /// The mask, as large as the picture: white is redrawn, black is kept. Needed, unless one of the next two is there.
    #[arg(long, env = "SD_WORKER_MASK", value_name = "FILE")]
    pub(crate) mask: Option<PathBuf>,
    /// Take the mask from the picture's alpha channel: what is transparent is redrawn.
    #[arg(long, env = "SD_WORKER_MASK_FROM_ALPHA")]
    pub(crate) mask_from_alpha: bool,
    /// Continue the picture beyond its edges by so many pixels.
    #[arg(long, env = "SD_WORKER_EXTEND", value_name = "LEFT,TOP,RIGHT,BOTTOM", value_parser = sides)]
    pub(crate) extend: Option<[u32; 4]>,
    /// How far into the picture it is redrawn along the sides that --extend names, in pixels.
    #[arg(long, env = "SD_WORKER_OVERLAP", default_value_t = Extend::default().overlap, value_name = "PIXELS")]
    pub(crate) overlap: u32,
    /// How much of the marked part is redrawn: 0 nothing, 1 all.
    #[arg(long, env = "SD_WORKER_STRENGTH", default_value_t = 1.0)]
    pub(crate) strength: f64,
    /// Radius in pixels by which the mask's edge is softened.
    #[arg(long, env = "SD_WORKER_MASK_BLUR", default_value_t = 0)]
    pub(crate) mask_blur: u32,
    /// Work at full size on the marked part with this margin in pixels [default: on the whole picture].
    #[arg(long, env = "SD_WORKER_PADDING_MASK_CROP", value_name = "PIXELS")]
    pub(crate) padding_mask_crop: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The picture: PNG, JPEG or WebP, of sd-worker or of a program that writes A1111's parameters.
    #[arg(env = "SD_WORKER_FILE")]
    pub(crate) file: PathBuf,
    /// Print one JSON object: request, command, pictures that are needed, and what could not be taken over.
    #[arg(long, env = "SD_WORKER_JSON")]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UpscaleArgs {
    /// The picture: PNG, JPEG or WebP.
    #[arg(env = "SD_WORKER_FILE")]
    pub(crate) file: PathBuf,
    /// The network: ESRGAN or Real-ESRGAN (RRDBNet) as a safetensors file.
    #[arg(long = "model", env = "SD_WORKER_UPSCALER", value_name = "FILE")]
    pub(crate) upscaler: PathBuf,
    /// By how much the result is larger, 1 to 8 [default: as the network does it].
    #[arg(long, env = "SD_WORKER_SCALE")]
    pub(crate) scale: Option<f64>,
    /// The side of the tiles that the picture is cut into, in pixels: memory grows with its square.
    #[arg(long, env = "SD_WORKER_TILE", value_name = "PIXELS", default_value_t = 192,
          value_parser = clap::value_parser!(u16).range(32..=1024))]
    pub(crate) tile: u16,
    /// How many pixels on each side of a tile are shared with the next one.
    #[arg(long, env = "SD_WORKER_MARGIN", value_name = "PIXELS", default_value_t = 16)]
    pub(crate) margin: u16,
    /// Which edges of the picture meet, so that those of the result do: x (left and right), y (top and bottom) or both.
    #[arg(long, env = "SD_WORKER_TILING", value_enum, value_name = "AXES")]
    pub(crate) tiling: Option<Axes>,
    /// How much memory network and work may take on the CPU: bytes, `1.5GB`, `2GiB`, or `off` for no limit [default: what
    /// the machine has left].
    #[arg(long, env = "SD_WORKER_MEMORY_LIMIT", value_name = "BYTES|off", value_parser = memory_limit)]
    pub(crate) memory_limit: Option<MemoryLimit>,
    /// Where to compute: `cpu`, `cuda`, `cuda:N` or `metal`.
    #[arg(long, env = "SD_WORKER_DEVICE", default_value = "cpu")]
    pub(crate) device: DeviceName,
    /// The file to write: .png, .jpg or .webp.
    #[arg(long, short, env = "SD_WORKER_OUTPUT", default_value = "sd-worker.png", value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Quality of a JPEG, 1 to 100.
    #[arg(long, env = "SD_WORKER_QUALITY", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) quality: u32,
    /// Leave out what the picture's own file told about its making.
    #[arg(long, env = "SD_WORKER_NO_METADATA")]
    pub(crate) no_metadata: bool,
    /// Print one JSON object instead of text and show no progress bar.
    #[arg(long, env = "SD_WORKER_JSON")]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Measure a full-size model with random weights instead: sd15, sd21 or sdxl.
    #[arg(long, env = "SD_WORKER_RANDOM", value_name = "FAMILY")]
    pub(crate) random: Option<RandomModel>,
    /// Width and height in pixels [default: the model's own].
    #[arg(long, env = "SD_WORKER_SIZE")]
    pub(crate) size: Option<usize>,
    /// How often each part is measured.
    #[arg(long, env = "SD_WORKER_ITERATIONS", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) iterations: u16,
    /// How often each part runs before that without being counted (for `picture` with a single step).
    #[arg(long, env = "SD_WORKER_WARMUP", default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=100))]
    pub(crate) warmup: u16,
    /// Pictures at once.
    #[arg(long, env = "SD_WORKER_BATCH", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) batch: u16,
    /// What to measure, separated by commas.
    #[arg(
        long,
        env = "SD_WORKER_PARTS",
        value_enum,
        value_delimiter = ',',
        default_value = "text,step,decode"
    )]
    pub(crate) parts: Vec<BenchPart>,
    /// Measure instead how long requests to /health and /v1/jobs take while pictures are made, each so often.
    #[arg(long, env = "SD_WORKER_LATENCY", value_name = "REQUESTS", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) latency: Option<u16>,
    /// For --latency: an empty directory that keeps the jobs meanwhile [default: they are kept in memory].
    #[arg(long, env = "SD_WORKER_DATA_DIR", value_name = "DIRECTORY")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Steps of the part `picture`.
    #[arg(long, env = "SD_WORKER_STEPS", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) steps: u16,
    /// Print one JSON object instead of a table.
    #[arg(long, env = "SD_WORKER_JSON")]
    pub(crate) json: bool,
}

/// The directions in which a picture tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Axes {
    /// Left and right meet.
    X,
    /// Top and bottom meet.
    Y,
    /// All four edges meet.
    Both,
}

impl From<Axes> for Tiling {
    fn from(axes: Axes) -> Self {
        Self { x: axes != Axes::Y, y: axes != Axes::X }
    }
}

/// A part of making a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchPart {
    /// Encoding prompt and negative prompt.
    Text,
    /// One denoising step with guidance: two UNet evaluations for each picture.
    Step,
    /// Latents to pixels.
    Decode,
    /// A preview by the linear map: what the next step waits for, and the rest. Then steps with and without previews in
    /// turn, by the linear map and, where there is one, by a tiny autoencoder.
    Preview,
    /// All of it, from prompt to pixels.
    Picture,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every flag of every command has its variable, named after it.
    #[test]
    fn every_flag_is_also_an_environment_variable() {
        let cli = Cli::command();
        let commands = cli.get_subcommands().flat_map(|command| command.get_subcommands().chain([command]));
        for command in commands.chain([&cli]) {
            for arg in
                command.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str()))
            {
                let name = arg.get_id().as_str().to_uppercase();
                let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned());
                assert_eq!(variable, Some(format!("SD_WORKER_{name}")), "{} {name}", command.get_name());
            }
        }
    }
}
