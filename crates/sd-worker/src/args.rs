//! The command line. Every flag is also an environment variable `SD_WORKER_...`.

mod bench;
mod model;
mod picture;
pub(crate) mod safety;

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use bench::{BenchArgs, BenchPart};
pub(crate) use model::{DeviceName, DtypeName, ModelArgs, PlaceArgs, TilingName};
pub(crate) use picture::{GenerateArgs, InpaintArgs, InspectArgs, TransformArgs, UpscaleArgs};

use crate::config::{ConfigArgs, FileArgs};
use crate::control::ControlNetArgs;
use crate::faces::FacesArgs;
use crate::jobs::args::JobsArgs;
use crate::life::LifeArgs;
use crate::model_set::ModelSetup;
use crate::models::args::ModelsArgs;
use crate::pool::PoolArgs;
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
