//! The flags of `sd-worker jobs`.

use std::path::PathBuf;

use clap::{Arg, Args, Command, Subcommand};
use operations_contract::{JobState, Priority};

use crate::args::{GenerateArgs, InpaintArgs, ModelArgs, TransformArgs};
use crate::control::ControlNetArgs;

/// `sd-worker jobs`.
#[derive(Debug, Args)]
#[command(after_help = "The bearer token is read from --token-file or SD_WORKER_TOKEN.")]
pub(crate) struct JobsArgs {
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
    #[command(subcommand)]
    pub(crate) command: JobsCommand,
}

/// Where the worker is, and how it lets one in.
#[derive(Debug, Args)]
pub(crate) struct RemoteArgs {
    /// The worker's address.
    #[arg(long, global = true, env = "SD_WORKER_URL", default_value = "http://127.0.0.1:8600", value_parser = base_url)]
    pub(crate) url: String,
    /// A file whose first line is the bearer token [default: SD_WORKER_TOKEN].
    #[arg(long, global = true, env = "SD_WORKER_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// A PEM file of certificates that the worker's must come from, or be [default: the well-known authorities].
    #[arg(long, global = true, env = "SD_WORKER_CA_CERT", value_name = "FILE")]
    pub(crate) ca_cert: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// Submit a job and print its id, or wait for its pictures.
    Submit(Box<SubmitArgs>),
    /// List the jobs that the worker remembers, the oldest first.
    List(ListArgs),
    /// Follow a job to its end.
    Watch(WatchArgs),
    /// Cancel jobs.
    Cancel(CancelArgs),
    /// Save the pictures of a finished job.
    Fetch(FetchArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// Follow the job to its end and save its pictures as --output says. Interrupting this does not cancel the job.
    #[arg(long, global = true, env = "SD_WORKER_WAIT")]
    pub(crate) wait: bool,
    /// Who of those that wait goes first: low, normal or high [default: normal].
    #[arg(long, global = true, env = "SD_WORKER_PRIORITY")]
    pub(crate) priority: Option<Priority>,
    /// Milliseconds after which the job is given up [default: none].
    #[arg(long, global = true, env = "SD_WORKER_DEADLINE_MS", value_name = "MS")]
    pub(crate) deadline_ms: Option<u64>,
    #[command(subcommand)]
    pub(crate) form: SubmitForm,
}

/// What is submitted: the flags are those of the commands of the same names.
#[derive(Debug, Subcommand)]
pub(crate) enum SubmitForm {
    /// Pictures from a text, with the flags of `sd-worker generate`.
    #[command(allow_negative_numbers = true)]
    Generate(GenerateArgs),
    /// Pictures from a picture and a text, with the flags of `sd-worker transform`.
    #[command(allow_negative_numbers = true)]
    Transform(TransformArgs),
    /// A picture in which a mask marks what is redrawn, with the flags of `sd-worker inpaint`.
    #[command(allow_negative_numbers = true)]
    Inpaint(InpaintArgs),
    /// A request as `POST /v1/jobs` takes it.
    Request(RequestArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RequestArgs {
    /// A JSON file, or `-` for standard input.
    #[arg(env = "SD_WORKER_FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) saving: SavingArgs,
}

/// Where pictures go.
#[derive(Debug, Args)]
pub(crate) struct SavingArgs {
    /// The file to write [default: sd-worker with the ending of the pictures' format]. Several pictures get -1, -2, ...
    /// before the ending.
    #[arg(long, short, env = "SD_WORKER_OUTPUT", value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print one JSON object instead of text and show no progress bar.
    #[arg(long, env = "SD_WORKER_JSON")]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only jobs in these states, separated by commas: queued, running, completed, failed, cancelled.
    #[arg(long, env = "SD_WORKER_STATE", value_delimiter = ',', value_parser = state)]
    pub(crate) state: Vec<JobState>,
    /// Only so many, those accepted last.
    #[arg(long, env = "SD_WORKER_LIMIT", value_name = "JOBS")]
    pub(crate) limit: Option<usize>,
    /// Print the jobs as one JSON object.
    #[arg(long, env = "SD_WORKER_JSON")]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// The job's id.
    #[arg(env = "SD_WORKER_JOB")]
    pub(crate) job: String,
    /// Print each event as a line of JSON, as the worker sends it, and show no progress bar.
    #[arg(long, env = "SD_WORKER_JSON")]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// The jobs' ids.
    #[arg(env = "SD_WORKER_JOB", required = true)]
    pub(crate) job: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    /// The job's id.
    #[arg(env = "SD_WORKER_JOB")]
    pub(crate) job: String,
    #[command(flatten)]
    pub(crate) saving: SavingArgs,
}

/// The flags of the local commands that say how a model is loaded. A worker elsewhere has its own.
pub(crate) fn loading() -> Vec<Arg> {
    let command = ControlNetArgs::augment_args(ModelArgs::augment_args(Command::new("loading")));
    command.get_arguments().filter(|arg| arg.get_id() != "model").cloned().collect()
}

/// The command line with the help of `submit` telling only what can be used there.
pub(crate) fn without_loading(cli: Command) -> Command {
    let hidden = loading();
    let hide = |arg: Arg| match hidden.iter().any(|other| other.get_id() == arg.get_id()) {
        true => arg.hide(true),
        false => arg,
    };
    let forms = ["generate", "transform", "inpaint"];
    cli.mut_subcommand("jobs", |jobs| {
        jobs.mut_subcommand("submit", |submit| {
            forms.iter().fold(submit, |submit, form| submit.mut_subcommand(form, |form| form.mut_args(hide)))
        })
    })
}

/// The address without a slash at its end.
fn base_url(text: &str) -> Result<String, String> {
    let uri: ureq::http::Uri = text.parse().map_err(|error| format!("is no address: {error}"))?;
    match uri.scheme_str() {
        Some("http" | "https") => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("must begin with http:// or https://".into()),
    }
}

fn state(text: &str) -> Result<JobState, String> {
    serde_json::from_value(text.into())
        .map_err(|_| "known are queued, running, completed, failed and cancelled".into())
}
