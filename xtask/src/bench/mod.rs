//! `cargo xtask bench`: sd-worker beside other programs that do the same work, in turn.

mod contender;
mod machine;
mod options;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::process::{Failure, Result, cargo, run as run_command};
use crate::{python, workspace};
use contender::{Contender, Programs};
use machine::{Busy, Machine};
use options::Options;

pub(crate) const HELP: &str = "Measure sd-worker, and beside it others that do the same work, and print the ratios\n\
     --vs-torch            PyTorch and diffusers too: tools/bench/torch_baseline.py in both memory layouts\n\
     --vs-sdcpp PATH       stable-diffusion.cpp too: PATH is its sd-cli\n\
     --python PATH         a Python that has the packages, instead of an environment made under target/\n\
     --worker PATH         this sd-worker instead of building one\n\
     --model sd15          shapes: sd15, sd21, sdxl; this and the next three take several, separated by commas\n\
     --size 512            pixels a side\n\
     --threads N           [default: the cores]\n\
     --dtype f32,bf16\n\
     --parts text,step,decode   also: picture, which is a whole one of --steps 20\n\
     --rounds 3            how often all take turns\n\
     --iterations 2        how often a program measures each part in its turn\n\
     --warmup 1            how often before that, which does not count\n\
     --layout contiguous,channels_last   memory layouts of PyTorch\n\
     --prefix 'COMMAND'    what to start each measured program with, such as 'taskset -c 0,1'\n\
     --json FILE           write all samples there as well";

/// Shapes and threads that all contenders are measured on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Case {
    model: String,
    size: usize,
    threads: usize,
}

/// What a program printed in one of its turns.
#[derive(Debug)]
pub(crate) struct Turn {
    /// From 0.
    round: usize,
    /// Which of the contenders.
    contender: usize,
    report: Value,
    /// The share of all cores that was busy with anything else meanwhile.
    others: Option<f64>,
}

pub(crate) fn run(arguments: &[String]) -> Result {
    let options = Options::parse(arguments)?;
    let programs = programs(&options)?;
    let contenders = Contender::all(&options);
    let mut sections = Vec::new();
    let mut raw = Vec::new();
    let mut versions = Vec::new();
    for case in options.cases() {
        let turns = take_turns(&case, &contenders, &programs, &options)?;
        sections.push(table::section(&case, &contenders, &turns, &options.parts));
        for turn in &turns {
            let version = table::version(&turn.report);
            if !versions.contains(&version) {
                versions.push(version);
            }
            raw.push(json!({
                "model": case.model, "size": case.size, "threads": case.threads, "round": turn.round,
                "contender": contenders[turn.contender].label(), "others": turn.others, "report": turn.report,
            }));
        }
    }
    let machine = Machine::this();
    let command = format!("cargo xtask bench {}", arguments.join(" "));
    println!("\n## {}, {}\n", machine.date, machine.text());
    println!("`{}`", command.trim_end());
    println!("\n{}\n", versions.join("; "));
    println!("{}", sections.join("\n\n"));
    if let Some(file) = &options.json {
        let all =
            json!({ "date": machine.date, "machine": machine.text(), "command": command, "turns": raw });
        fs::write(file, format!("{all:#}\n"))
            .map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
    }
    Ok(())
}

/// Builds and installs what will be measured.
fn programs(options: &Options) -> Result<Programs> {
    let worker = match &options.worker {
        Some(worker) => worker.clone(),
        None => {
            run_command(&mut cargo(["build", "--release", "--package", "sd-worker", "--locked"]))?;
            workspace::target_dir().join("release/sd-worker")
        }
    };
    let needs_python = options.vs_torch || options.vs_sdcpp.is_some();
    let python = match (&options.python, needs_python) {
        (_, false) => PathBuf::new(),
        (Some(python), true) => python.clone(),
        (None, true) => python::environment(
            &workspace::target_dir().join("python-bench"),
            &workspace::root().join("tools/bench/requirements.txt"),
        )?,
    };
    if options.vs_sdcpp.is_some() {
        for model in &options.models {
            write_checkpoint(&python, model)?;
        }
    }
    Ok(Programs { worker, python, sdcpp: options.vs_sdcpp.clone().unwrap_or_default() })
}

/// Writes the files that stable-diffusion.cpp reads, unless an earlier run did.
fn write_checkpoint(python: &Path, model: &str) -> Result {
    let folder = Programs::checkpoint(model);
    // It is the last file to be written.
    if folder.join("model_index.json").is_file() {
        return Ok(());
    }
    let mut write = Command::new(python);
    write.arg("tools/bench/random_checkpoint.py").arg(&folder).args(["--random", model, "--dtype", "f16"]);
    run_command(write.current_dir(workspace::root()))
}

/// Every contender in every round; the order is turned around from one round to the next, so that what comes first has
/// no lasting advantage. One that fails is told of and sits out the rest of the case.
fn take_turns(
    case: &Case,
    contenders: &[Contender],
    programs: &Programs,
    options: &Options,
) -> Result<Vec<Turn>> {
    let mut turns = Vec::new();
    let mut failed = vec![false; contenders.len()];
    for round in 0..options.rounds {
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for contender in order {
            if failed[contender] {
                continue;
            }
            let label = contenders[contender].label();
            eprintln!("{case}, round {} of {}: {label}", round + 1, options.rounds);
            let command = contenders[contender].command(case, programs, options);
            let busy = Busy::now();
            match report(prefixed(command, options.prefix.as_deref())) {
                Ok(report) => {
                    // What a prefix does or waits for would be counted as well.
                    let others = busy.filter(|_| options.prefix.is_none()).and_then(Busy::others_since);
                    turns.push(Turn { round, contender, report, others });
                }
                Err(failure) => {
                    eprintln!("{label} sits out: {failure}");
                    failed[contender] = true;
                }
            }
        }
    }
    if failed[0] {
        return Err(Failure::new(format!("{case}: sd-worker could not be measured")));
    }
    Ok(turns)
}

/// `command`, started by the words of `prefix`.
fn prefixed(command: Command, prefix: Option<&str>) -> Command {
    let mut words = prefix.unwrap_or_default().split_whitespace();
    let Some(program) = words.next() else { return command };
    let mut outer = Command::new(program);
    outer.args(words).arg(command.get_program()).args(command.get_args());
    outer
}

/// Runs a program that prints one JSON object.
fn report(mut command: Command) -> Result<Value> {
    let program = Path::new(command.get_program()).display().to_string();
    let output = command
        .current_dir(workspace::root())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::new(format!("{program} could not be started: {error}")))?;
    if !output.status.success() {
        return Err(Failure::new(format!("{program} failed ({})", output.status)));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::new(format!("{program} printed no JSON object: {error}")))
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { model, size, threads } = self;
        let plural = if *threads == 1 { "" } else { "s" };
        write!(f, "{model} at {size}x{size}, {threads} thread{plural}")
    }
}
