//! What `bench` takes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use sd_inference::RandomModel;

use super::model::ModelArgs;

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
