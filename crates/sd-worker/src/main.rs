//! `sd-worker`: pictures from the command line, a service for them, and a benchmark.
//!
//! Exit codes: 0 done; 1 the work failed; 2 the request cannot be done as it was asked; 130 interrupted.

mod args;
mod bench;
mod control;
mod demo;
mod exit;
mod follow;
mod generate;
mod info;
mod inspect;
mod latency;
mod logging;
mod loras;
mod model;
mod models;
mod output;
mod pool;
mod safety;
mod serve;
mod threads;
mod upscale;
mod worker;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

fn main() -> ExitCode {
    threads::keep_to_one_pool();
    let cli = Cli::parse();
    logging::start(cli.log_format, matches!(cli.command, Command::Serve(_)));
    if let Some(warning) = sd_inference::cpu_kernels_warning() {
        tracing::warn!("{warning}");
    }
    let result = threads::start(cli.threads).and_then(|()| match cli.command {
        Command::Generate(args) => generate::run(&args),
        Command::Transform(args) => generate::transform(&args),
        Command::Inpaint(args) => generate::inpaint(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Upscale(args) => upscale::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Info => info::run(cli.threads),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", failure.message);
            failure.kind.into()
        }
    }
}
