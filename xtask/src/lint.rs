//! `cargo xtask lint` and `cargo xtask fmt`: format, clippy, rustdoc.

use std::process::Command;

use crate::process::{Failure, Result, cargo, run as run_command, succeeds};
use crate::stages::Stages;

pub(crate) const HELP: &str = "Check format, clippy and rustdoc, warnings denied";
/// The feature that brings traces into the worker.
pub(crate) const OTEL: &str = "sd-worker/otel";
pub(crate) const FMT_HELP: &str = "Format the workspace\n\
     --check only looks";

pub(crate) fn run(arguments: &[String]) -> Result {
    if let Some(argument) = arguments.first() {
        return Err(Failure::new(format!("`lint` takes no argument `{argument}`")));
    }
    let mut stages = Stages::default();
    stages.run("fmt", format_check);
    stages.run("clippy", clippy);
    stages.run("docs", docs);
    stages.finish()
}

pub(crate) fn run_fmt(arguments: &[String]) -> Result {
    component("rustfmt")?;
    match arguments {
        [] => run_command(&mut cargo(["fmt", "--all"])),
        [only] if only == "--check" => format_check(),
        _ => Err(Failure::new("`fmt` takes only --check")),
    }
}

pub(crate) fn format_check() -> Result {
    component("rustfmt")?;
    run_command(&mut cargo(["fmt", "--all", "--check"]))
}

pub(crate) fn clippy() -> Result {
    component("clippy")?;
    run_command(&mut cargo(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
}

/// With the feature `otel`, which changes nothing below `sd-http`: little is compiled again.
pub(crate) fn clippy_with_otel() -> Result {
    let features = ["--features", OTEL];
    run_command(
        cargo(["clippy", "--workspace", "--all-targets", "--locked"])
            .args(features)
            .args(["--", "-D", "warnings"]),
    )
}

pub(crate) fn docs() -> Result {
    run_command(cargo(["doc", "--workspace", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "-D warnings"))
}

/// Makes sure that a component of the toolchain is there, through rustup when there is one.
fn component(name: &str) -> Result {
    let subcommand = if name == "rustfmt" { "fmt" } else { name };
    if succeeds(&mut cargo([subcommand, "--version"])) {
        return Ok(());
    }
    let mut add = Command::new("rustup");
    add.args(["component", "add", name]).current_dir(crate::workspace::root());
    run_command(&mut add).map_err(|_| {
        Failure::new(format!(
            "{name} is missing: `rustup component add {name}` (or your distribution's package)"
        ))
    })
}
