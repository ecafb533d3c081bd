//! `sd-worker`: pictures from the command line, a service for them, and a benchmark.
//!
//! Exit codes: 0 done; 1 the work failed; 2 the request cannot be done as it was asked; 130 interrupted.

mod args;
mod bench;
mod config;
mod control;
mod demo;
mod exit;
mod faces;
mod follow;
mod generate;
mod info;
mod inspect;
mod jobs;
mod latency;
mod life;
mod logging;
mod loras;
mod model;
mod model_set;
mod models;
mod output;
mod part_names;
mod pool;
mod previews;
mod registration;
mod reload;
mod safety;
mod serve;
mod signals;
mod store;
mod story;
mod threads;
mod traces;
mod upscale;
mod worker;

use std::process::ExitCode;

use args::Command;
use config::{Configured, Unusable};
use exit::Failure;
use reload::{Live, Reload};
use traces::Traces;

fn main() -> ExitCode {
    threads::keep_to_one_pool();
    let arguments: Vec<_> = std::env::args_os().collect();
    let Configured { mut cli, explicit, settings } = match config::load(&arguments) {
        Ok(configured) => configured,
        Err(Unusable::CommandLine(error)) => error.exit(),
        Err(Unusable::File(failure)) => return ended(Err(failure)),
    };
    let (service, started) = match &mut cli.command {
        Command::Serve(args) => (true, Traces::start(&args.traces, args.supervisor.settled_id())),
        _ => (false, Ok((None, Traces::default()))),
    };
    let (spans, traces) = match started {
        Ok(started) => started,
        Err(failure) => return ended(Err(failure)),
    };
    let log = logging::start(cli.log_format, cli.log.as_deref(), service, spans);
    config::environment::warn();
    traces.announce();
    if let Some(warning) = sd_inference::cpu_kernels_warning() {
        tracing::warn!("{warning}");
    }
    let result = threads::start(cli.threads).and_then(|()| match cli.command {
        Command::Generate(args) => generate::run(&args),
        Command::Transform(args) => generate::transform(&args),
        Command::Inpaint(args) => generate::inpaint(&args),
        Command::Serve(args) => {
            let live = Live::new(log, &args);
            serve::run(args, Reload::new(arguments, settings, live))
        }
        Command::Config(args) => config::run(&args, &settings),
        Command::Jobs(args) => jobs::run(&args, &explicit),
        Command::Inspect(args) => inspect::run(&args),
        Command::Upscale(args) => upscale::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Info => info::run(cli.threads),
    });
    traces.stop();
    ended(result)
}

fn ended(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", failure.message);
            failure.kind.into()
        }
    }
}
