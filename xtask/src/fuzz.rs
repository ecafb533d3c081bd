//! `cargo xtask fuzz`: looks for bytes that break what must always hold.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Failure, Result, cargo, run as run_command, succeeds};
use crate::stages::Stages;
use crate::workspace;

pub(crate) const HELP: &str = "Run the fuzzers: [SECONDS] [NAME]...\n\
     Each for so many seconds (60), beginning with fuzz/corpus/NAME. What it finds worth keeping is added there, as few\n\
     inputs as reach the same code; an input that fails is written to target/fuzz/artifacts/NAME. The tests run all of\n\
     fuzz/corpus. Linux on x86-64 or aarch64; installs cargo-fuzz under target/tools.";

const VERSION: &str = "0.13.2";

pub(crate) fn run(arguments: &[String]) -> Result {
    let (numbers, names): (Vec<&String>, Vec<&String>) =
        arguments.iter().partition(|argument| argument.bytes().all(|byte| byte.is_ascii_digit()));
    let seconds = numbers.first().map_or("60", |number| number.as_str());
    let targets = targets()?;
    if let Some(unknown) = names.iter().find(|name| !targets.contains(name)) {
        return Err(Failure::new(format!("there is no fuzzer `{unknown}`: {}", targets.join(", "))));
    }
    let tool = tool()?;
    let mut stages = Stages::default();
    for target in targets {
        if names.is_empty() || names.contains(&&target) {
            // The stages' names live as long as the program.
            let name: &'static str = target.leak();
            stages.run(name, || fuzz(&tool, name, seconds));
        }
    }
    stages.finish()
}

fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(workspace::root().join("fuzz/fuzz_targets"))? {
        let path = entry?.path();
        names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// cargo-fuzz of this version, compiled once.
fn tool() -> Result<PathBuf> {
    let root = workspace::target_dir().join("tools");
    let tool = root.join("bin/cargo-fuzz");
    let version = Command::new(&tool).arg("--version").output();
    if version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(VERSION)) {
        return Ok(tool);
    }
    let mut install = cargo(["install", "cargo-fuzz", "--locked", "--version", VERSION, "--root"]);
    run_command(install.arg(&root))?;
    Ok(tool)
}

/// New inputs go to a folder under `target`, so that only what is worth keeping comes into the repository.
fn fuzz(tool: &Path, target: &str, seconds: &str) -> Result {
    let root = workspace::root();
    let kept = root.join("fuzz/corpus").join(target);
    let work = workspace::target_dir().join("fuzz");
    let (found, artifacts) = (work.join("corpus").join(target), work.join("artifacts").join(target));
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&artifacts)?;
    fs::create_dir_all(&kept)?;
    let prefix = format!("-artifact_prefix={}/", artifacts.display());
    let time = format!("-max_total_time={seconds}");
    let mut search = command(tool, "run", target);
    search.arg(&found).arg(&kept).args([
        "--",
        &time,
        &prefix,
        "-max_len=65536",
        "-timeout=20",
        "-print_final_stats=1",
    ]);
    run_command(&mut search)?;
    // Merging adds to the first folder what the others reach beyond it.
    let mut merge = command(tool, "run", target);
    merge.arg(&kept).arg(&found).args(["--", "-merge=1", "-max_len=4096"]);
    run_command(&mut merge)
}

fn command(tool: &Path, what: &str, target: &str) -> Command {
    let mut command = Command::new(tool);
    command.current_dir(workspace::root()).args(["fuzz", what, "--fuzz-dir", "fuzz", "--target-dir"]);
    command.arg(workspace::target_dir().join("fuzz/build")).arg(target);
    // The toolchain has the sanitizer's runtime, but takes the flags only so.
    command.env("RUSTC_BOOTSTRAP", "1");
    if succeeds(Command::new("clang").arg("--version")) {
        command.env("CC", "clang").env("CXX", "clang++");
    }
    command
}
