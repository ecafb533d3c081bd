//! A run of named stages: each is timed, all are run, and what failed is listed at the end.

use std::time::{Duration, Instant};

use crate::process::{Failure, Result};

/// The stages run so far.
#[derive(Default)]
pub(crate) struct Stages {
    lines: Vec<String>,
    failed: Vec<&'static str>,
}

impl Stages {
    /// Runs one stage. A failure is remembered and the next stage still runs, so that one run shows everything.
    pub(crate) fn run(&mut self, name: &'static str, stage: impl FnOnce() -> Result) {
        println!("==> {name}");
        let start = Instant::now();
        let line = match stage() {
            Ok(()) => format!("ok      {name:<9} {}", seconds(start.elapsed())),
            Err(failure) => {
                self.failed.push(name);
                format!("FAILED  {name:<9} {}  {failure}", seconds(start.elapsed()))
            }
        };
        println!("{line}");
        self.lines.push(line);
    }

    /// Prints one line per stage; an error when any failed.
    pub(crate) fn finish(self) -> Result {
        println!("\n{}", self.lines.join("\n"));
        if self.failed.is_empty() {
            return Ok(());
        }
        Err(Failure::new(format!("failed: {}", self.failed.join(", "))))
    }
}

pub(crate) fn seconds(time: Duration) -> String {
    format!("{:>7.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_runs_and_failures_are_listed() {
        let mut stages = Stages::default();
        let mut ran = 0;
        stages.run("one", || Err(Failure::new("broken")));
        stages.run("two", || {
            ran += 1;
            Ok(())
        });
        stages.run("three", || Err(Failure::new("broken too")));
        assert_eq!(ran, 1);
        assert_eq!(stages.finish().unwrap_err().to_string(), "failed: one, three");
    }
}
