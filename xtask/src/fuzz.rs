//! `cargo xtask fuzz`: looks for bytes that break what must always hold.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Failure, Result, cargo, run as run_command, succeeds};
use crate::stages::Stages;
use crate::workspace;

pub(crate) const HELP: &str = "Run the fuzzers: [SECONDS] [NAME]...\n\
     Each for so many seconds (60), beginning with fuzz/corpus/NAME and fuzz/corpus/NAME.hex. What it finds worth keeping\n\
     comes into the latter, as few inputs as reach the same code, a line each; an input that fails is written to\n\
     target/fuzz/artifacts/NAME. The tests run all of fuzz/corpus. Linux on x86-64 or aarch64; installs cargo-fuzz under target/tools.";

const VERSION: &str = "0.13.2";
/// In bytes. Longer ones are cut.
const LONGEST_KEPT: &str = "-max_len=1024";

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

/// All inputs that reach anything new stay in a folder under `target`; the repository gets those that cover the same code.
fn fuzz(tool: &Path, target: &str, seconds: &str) -> Result {
    let corpus = workspace::root().join("fuzz/corpus");
    let (seeds, kept) = (corpus.join(target), corpus.join(target).with_extension("hex"));
    let work = workspace::target_dir().join("fuzz");
    let [found, merged, artifacts] =
        ["corpus", "merged", "artifacts"].map(|name| work.join(name).join(target));
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&artifacts)?;
    for (index, input) in unpacked(&kept)?.into_iter().enumerate() {
        fs::write(found.join(format!("kept-{index}")), input)?;
    }
    let prefix = format!("-artifact_prefix={}/", artifacts.display());
    let time = format!("-max_total_time={seconds}");
    let mut search = command(tool, "run", target);
    search.arg(&found).arg(&seeds).args([
        "--",
        &time,
        &prefix,
        "-max_len=65536",
        "-timeout=20",
        "-print_final_stats=1",
    ]);
    run_command(&mut search)?;
    // Merging adds to the first folder what the others reach beyond it.
    let _ = fs::remove_dir_all(&merged);
    fs::create_dir_all(&merged)?;
    let mut own = BTreeSet::new();
    for seed in fs::read_dir(&seeds)? {
        let seed = seed?;
        fs::copy(seed.path(), merged.join(seed.file_name()))?;
        own.insert(seed.file_name());
    }
    let mut merge = command(tool, "run", target);
    merge.arg(&merged).arg(&found).args(["--", "-set_cover_merge=1", LONGEST_KEPT]);
    run_command(&mut merge)?;
    let mut inputs = Vec::new();
    for input in fs::read_dir(&merged)? {
        let input = input?;
        if !own.contains(&input.file_name()) {
            inputs.push(fs::read(input.path())?);
        }
    }
    inputs.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    fs::write(&kept, inputs.iter().map(|input| hex(input) + "\n").collect::<String>())?;
    Ok(())
}

/// Each line of a file of the repository is an input: thousands of files would be in everybody's way.
fn unpacked(kept: &Path) -> std::result::Result<Vec<Vec<u8>>, Failure> {
    if !kept.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(kept)?;
    let lines = text
        .lines()
        .map(|line| unhex(line).ok_or_else(|| Failure::new(format!("{}: `{line}`", kept.display()))));
    lines.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(line: &str) -> Option<Vec<u8>> {
    line.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back() {
        for input in [&b""[..], b"{}", &[0, 255, 10]] {
            assert_eq!(unhex(&hex(input)).as_deref(), Some(input));
        }
        assert_eq!(unhex("7g"), None);
    }
}
