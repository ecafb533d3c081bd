//! Maintenance tasks of the workspace, behind the alias `cargo xtask`.
//!
//! One file per subcommand. A command sets up by itself what it needs under `target/`, or fails with one line that
//! names what is missing and how to get it.
#![allow(clippy::print_stdout, reason = "a command line tool that talks to its user")]

mod aarch64;
mod bench;
mod clients;
mod coverage;
mod cuda_check;
mod cuda_toolkit;
mod deny;
mod examples;
mod fixtures;
mod fuzz;
mod lint;
mod openapi;
mod process;
mod python;
mod reference;
mod sanitize;
mod schemathesis;
mod served;
mod stages;
mod test;
mod workspace;

use std::process::ExitCode;

use process::Result;

/// One subcommand: its name, what runs it, and what it says about itself: a line for `help`, details below it.
struct Task {
    name: &'static str,
    help: &'static str,
    run: fn(&[String]) -> Result,
}

const TASKS: &[Task] = &[
    Task { name: "test", help: test::HELP, run: test::run },
    Task { name: "lint", help: lint::HELP, run: lint::run },
    Task { name: "fmt", help: lint::FMT_HELP, run: lint::run_fmt },
    Task { name: "deny", help: deny::HELP, run: deny::run },
    Task { name: "sanitize", help: sanitize::HELP, run: sanitize::run },
    Task { name: "fuzz", help: fuzz::HELP, run: fuzz::run },
    Task { name: "coverage", help: coverage::HELP, run: coverage::run },
    Task { name: "fixtures", help: fixtures::HELP, run: fixtures::run },
    Task { name: "openapi", help: openapi::HELP, run: openapi::run },
    Task { name: "reference", help: reference::HELP, run: reference::run },
    Task { name: "bench", help: bench::HELP, run: bench::run },
    Task { name: "aarch64", help: aarch64::HELP, run: aarch64::run },
    Task { name: "cuda-check", help: cuda_check::HELP, run: cuda_check::run },
];

fn main() -> ExitCode {
    if let Some(code) = coverage::as_rustc() {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = arguments.first().map_or("help", String::as_str);
    if matches!(name, "help" | "-h" | "--help") {
        print!("{}", help());
        return ExitCode::SUCCESS;
    }
    let Some(task) = TASKS.iter().find(|task| task.name == name) else {
        eprintln!("error: there is no task `{name}`\n\n{}", help());
        return ExitCode::from(2);
    };
    let rest = &arguments[1..];
    if rest.iter().any(|argument| argument == "--help" || argument == "-h") {
        println!("cargo xtask {}\n\n{}", task.name, task.help);
        return ExitCode::SUCCESS;
    }
    match (task.run)(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn help() -> String {
    let mut text = String::from("Usage: cargo xtask TASK [ARGUMENTS]\n\n");
    for task in TASKS {
        let summary = task.help.lines().next().unwrap_or_default();
        text.push_str(&format!("  {:<11} {summary}\n", task.name));
    }
    text.push_str("  help        Print this\n");
    text
}
