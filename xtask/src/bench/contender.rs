//! The programs that are measured beside each other. Each prints a JSON object with the keys of `sd-worker bench --json`.

use std::path::PathBuf;
use std::process::Command;

use super::Case;
use super::options::Options;

/// Where the programs are.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) worker: PathBuf,
    pub(super) python: PathBuf,
}

/// A program with the settings that it is measured with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Contender {
    pub(super) program: Program,
    pub(super) dtype: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    Worker,
    /// PyTorch with this memory layout.
    Torch(&'static str),
}

impl Program {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Worker => "sd-worker",
            Self::Torch(_) => "torch",
        }
    }
}

impl Contender {
    /// sd-worker in each number format, then the others.
    pub(super) fn all(dtypes: &[String], vs_torch: bool) -> Vec<Self> {
        let mut programs = vec![Program::Worker];
        if vs_torch {
            programs.extend([Program::Torch("contiguous"), Program::Torch("channels_last")]);
        }
        let with_each = |program| dtypes.iter().map(move |dtype| Self { program, dtype: dtype.clone() });
        programs.into_iter().flat_map(with_each).collect()
    }

    /// What the tables call it.
    pub(super) fn label(&self) -> String {
        let setting = self.setting().map(|setting| format!(" {setting}")).unwrap_or_default();
        format!("{} {}{setting}", self.program.name(), self.dtype)
    }

    /// What tells it from others of the same program and number format.
    pub(super) fn setting(&self) -> Option<&'static str> {
        match self.program {
            Program::Worker => None,
            Program::Torch(layout) => Some(layout),
        }
    }

    pub(super) fn command(&self, case: &Case, programs: &Programs, options: &Options) -> Command {
        let mut command = match self.program {
            Program::Worker => {
                let mut command = Command::new(&programs.worker);
                command.arg("bench");
                command
            }
            Program::Torch(layout) => {
                let mut command = Command::new(&programs.python);
                // Both sides hold the whole model, so that their memory can be compared.
                command.args(["tools/bench/torch_baseline.py", "--hold", "--layout", layout]);
                command
            }
        };
        command.args(["--random", &case.model, "--dtype", &self.dtype, "--json"]);
        command.args(["--parts", &options.parts.join(",")]);
        for (flag, number) in [
            ("--size", case.size),
            ("--threads", case.threads),
            ("--iterations", options.iterations),
            ("--steps", options.steps),
        ] {
            command.arg(flag).arg(number.to_string());
        }
        command
    }
}
