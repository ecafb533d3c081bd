//! What the commands take that make a picture, and the one that reads it back.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use operations_contract::{
    Extend, GuidanceInterval, Refiner, RngKind, Sampler, Schedule, Tiling, TimestepSpacing, Upscaler,
};
use sd_inference::MemoryLimit;

use super::model::{DeviceName, ModelArgs, memory_limit};
use crate::control::ControlArgs;
use crate::loras::LoraArg;
use crate::previews::PreviewArgs;

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
    #[arg(long, env = "SD_WORKER_SEED", value_parser = seed)]
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
    #[arg(long, env = "SD_WORKER_OVERLAP", requires = "extend", default_value_t = Extend::default().overlap, value_name = "PIXELS")]
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

fn guidance_interval(text: &str) -> Result<GuidanceInterval, String> {
    let number = |text: &str| text.trim().parse::<f64>().map_err(|_| format!("`{text}` is no number"));
    let (start, end) = text.split_once(',').ok_or("two numbers with a comma between them are wanted")?;
    Ok(GuidanceInterval { start: number(start)?, end: number(end)? })
}

fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("must be a whole number from 0 to {}", u64::MAX))
}

/// Four numbers of pixels.
fn sides(text: &str) -> Result<[u32; 4], String> {
    let sides: Result<Vec<u32>, _> = text.split(',').map(|side| side.trim().parse()).collect();
    sides
        .ok()
        .and_then(|sides| sides.try_into().ok())
        .ok_or_else(|| "must be four numbers of pixels, as 0,0,64,0: left, top, right, bottom".to_owned())
}
