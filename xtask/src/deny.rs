//! `cargo xtask deny`: licences, bans and sources of every dependency, with cargo-deny.

use std::path::PathBuf;
use std::process::Command;

use crate::process::{Failure, Result, cargo, run as run_command};
use crate::workspace;

pub(crate) const HELP: &str = "Check the dependencies' licences, versions and sources with cargo-deny\n\
     --advisories checks security advisories as well, which are fetched from their git repository";

const VERSION: &str = "0.20.2";

pub(crate) fn run(arguments: &[String]) -> Result {
    match arguments {
        [] => offline_checks(),
        [only] if only == "--advisories" => check(&["advisories", "bans", "licenses", "sources"]),
        _ => Err(Failure::new("`deny` takes only --advisories")),
    }
}

/// What can be checked without the advisory database, which is a git repository outside any package registry.
pub(crate) fn offline_checks() -> Result {
    check(&["bans", "licenses", "sources"])
}

fn check(what: &[&str]) -> Result {
    let mut command = Command::new(installed()?);
    command.args(["--locked", "check", "--hide-inclusion-graph"]).args(what);
    run_command(command.current_dir(workspace::root()))
}

/// cargo-deny from `PATH` or from `target/tools`, where it is compiled once.
fn installed() -> Result<PathBuf> {
    let root = workspace::target_dir().join("tools");
    let program = root.join("bin/cargo-deny");
    if let Some(found) =
        workspace::find_program("cargo-deny").or_else(|| program.is_file().then(|| program.clone()))
    {
        return Ok(found);
    }
    println!("cargo-deny is not installed; compiling {VERSION} once into {}", root.display());
    let mut install = cargo(["install", "cargo-deny", "--locked", "--debug", "--version", VERSION, "--root"]);
    // It runs for a second: the time goes into compiling it, so nothing is optimised.
    install.arg(&root).env("CARGO_PROFILE_DEV_DEBUG", "false").env("CARGO_PROFILE_DEV_OPT_LEVEL", "0");
    run_command(&mut install).map_err(|failure| {
        Failure::new(format!("cargo-deny is missing: `cargo install cargo-deny --locked` ({failure})"))
    })?;
    Ok(program)
}
