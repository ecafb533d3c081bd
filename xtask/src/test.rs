//! `cargo xtask test`: everything that must hold before a change is merged.

use std::time::Duration;

use crate::process::{Failure, Result, cargo, run_and_keep};
use crate::stages::Stages;
use crate::{clients, deny, examples, lint, schemathesis};

pub(crate) const HELP: &str = "Run everything: format, clippy, docs, tests, parity on every kernel set, examples, doctests, traces, clients, API, licences\n\
     Arguments name single stages: fmt clippy docs tests kernels examples doctests otel clients schemathesis deny";

const STAGES: &[&str] = &[
    "fmt",
    "clippy",
    "docs",
    "tests",
    "kernels",
    "examples",
    "doctests",
    "otel",
    "clients",
    "schemathesis",
    "deny",
];
/// The kernel sets; on a machine that lacks one the next best runs, and says so.
const KERNEL_SETS: [&str; 4] = ["scalar", "avx2", "avx512", "amx-emulated"];

/// The tests that compare with the reference.
const COMPARED: [&str; 16] = [
    "parity",
    "runs",
    "solver_runs",
    "transforms",
    "inpaints",
    "seamless",
    "hires",
    "refiner",
    "few_steps",
    "brownian",
    "prompts",
    "controlnet",
    "controls",
    "lora",
    "loras",
    "taesd",
];

pub(crate) fn run(arguments: &[String]) -> Result {
    if let Some(unknown) = arguments.iter().find(|name| !STAGES.contains(&name.as_str())) {
        return Err(Failure::new(format!("there is no stage `{unknown}`; stages: {}", STAGES.join(", "))));
    }
    let start = std::time::Instant::now();
    let mut stages = Stages::default();
    let mut counts = Counts::default();
    for &name in STAGES.iter().filter(|name| arguments.is_empty() || arguments.iter().any(|a| a == *name)) {
        match name {
            "fmt" => stages.run(name, lint::format_check),
            "clippy" => stages.run(name, lint::clippy),
            "docs" => stages.run(name, lint::docs),
            "tests" => stages.run(name, || tests(&mut counts)),
            "kernels" => stages.run(name, || kernel_sets(&mut counts)),
            "examples" => stages.run(name, || examples::run_all(&mut counts.passed)),
            "doctests" => stages.run(name, || doctests(&mut counts)),
            "otel" => stages.run(name, || otel(&mut counts)),
            "clients" => stages.run(name, || {
                let (result, output) = clients::run_all();
                counts.read(&output);
                result
            }),
            "schemathesis" => stages.run(name, schemathesis::check),
            _ => stages.run(name, deny::offline_checks),
        }
    }
    let result = stages.finish();
    counts.print(result.is_ok(), start.elapsed());
    result
}

fn tests(counts: &mut Counts) -> Result {
    let (result, output) =
        run_and_keep(runner().args(["--workspace", "--lib", "--bins", "--tests", "--examples", "--locked"]));
    counts.read(&output);
    result
}

/// What is compared with the reference, on each kernel set: a process keeps the one that it begins with.
fn kernel_sets(counts: &mut Counts) -> Result {
    for set in KERNEL_SETS {
        println!("SD_KERNELS={set}");
        let mut command = runner();
        command.env("SD_KERNELS", set).args(["--workspace", "--locked"]);
        command.args(COMPARED.iter().flat_map(|name| ["--test", name]));
        let (result, output) = run_and_keep(&mut command);
        counts.read(&output);
        result?;
    }
    Ok(())
}

/// What is there with the feature `otel` alone.
fn otel(counts: &mut Counts) -> Result {
    lint::clippy_with_otel()?;
    let mut command = runner();
    command.args([
        "--workspace",
        "--locked",
        "--features",
        lint::OTEL,
        "--bin",
        "sd-worker",
        "--test",
        "otel",
    ]);
    let (result, output) = run_and_keep(&mut command);
    counts.read(&output);
    result
}

/// cargo-nextest where it is installed.
fn runner() -> std::process::Command {
    match crate::workspace::find_program("cargo-nextest").is_some() {
        true => cargo(["nextest", "run", "--no-fail-fast", "--no-tests=pass"]),
        false => cargo(["test", "--no-fail-fast"]),
    }
}

fn doctests(counts: &mut Counts) -> Result {
    let (result, output) =
        run_and_keep(&mut cargo(["test", "--workspace", "--doc", "--no-fail-fast", "--locked"]));
    counts.read(&output);
    result
}

/// What the test runners counted.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    /// Adds what a run of `cargo test`, `cargo nextest` or Python's `unittest` printed.
    ///
    /// libtest: `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
    /// nextest: `     Summary [   0.010s] 4 tests run: 3 passed (1 slow), 1 failed, 2 skipped`.
    /// unittest: `Ran 4 tests in 0.1s`, and later `OK` or `FAILED (failures=1, errors=1, skipped=2)`.
    fn read(&mut self, output: &str) {
        for line in output.lines() {
            let line = line.trim_start();
            let counts = if let Some(counts) = line.strip_prefix("test result: ") {
                counts
            } else if line.starts_with("Summary [") {
                line.split_once("run: ").map_or("", |(_, counts)| counts)
            } else {
                self.read_unittest(line);
                continue;
            };
            for part in counts.split([';', ',', '.']) {
                let mut words = part.split_whitespace();
                let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<u64>), words.next())
                else {
                    continue;
                };
                match what {
                    "passed" => self.passed += number,
                    "failed" | "timed" => self.failed += number,
                    "ignored" | "skipped" => self.skipped += number,
                    _ => {}
                }
            }
        }
    }

    fn read_unittest(&mut self, line: &str) {
        if let Some(ran) = line.strip_prefix("Ran ") {
            self.passed += ran.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0);
        }
        let counts = line
            .strip_prefix("FAILED (")
            .or(line.strip_prefix("OK ("))
            .and_then(|rest| rest.strip_suffix(')'));
        for (what, number) in
            counts.into_iter().flat_map(|counts| counts.split(", ")).filter_map(|part| part.split_once('='))
        {
            let number: u64 = number.parse().unwrap_or(0);
            match what {
                "failures" | "errors" => self.failed += number,
                "skipped" => self.skipped += number,
                _ => continue,
            }
            self.passed = self.passed.saturating_sub(number);
        }
    }

    fn print(&self, ok: bool, time: Duration) {
        println!(
            "\ntest result: {}. {} passed; {} failed; {} ignored; finished in {:.0}s",
            if ok { "ok" } else { "FAILED" },
            self.passed,
            self.failed,
            self.skipped,
            time.as_secs_f64(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_both_runners_are_added_up() {
        let mut counts = Counts::default();
        counts.read(
            "running 4 tests\n\
             test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 9 filtered out; finished in 0.01s\n\
             test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!(counts, Counts { passed: 4, failed: 2, skipped: 1 });
        counts.read(
            "     Summary [   0.010s] 9 tests run: 7 passed (1 slow), 1 failed, 1 timed out, 3 skipped\n",
        );
        assert_eq!(counts, Counts { passed: 11, failed: 4, skipped: 4 });
        counts.read(
            "Ran 4 tests in 0.1s\n\nFAILED (failures=1, errors=1, skipped=1)\nRan 2 tests in 0.1s\n\nOK\n",
        );
        assert_eq!(counts, Counts { passed: 14, failed: 6, skipped: 5 });
    }

    #[test]
    fn an_unknown_stage_is_refused() {
        let failure = run(&["fmt".into(), "speed".into()]).unwrap_err();
        assert!(failure.to_string().contains("no stage `speed`"), "{failure}");
    }
}
