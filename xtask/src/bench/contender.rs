//! The programs that are measured beside each other. Each prints a JSON object with the keys of `sd-worker bench --json`.

use std::path::PathBuf;
use std::process::Command;

use super::Case;
use super::options::Options;
use crate::workspace;

/// Where the programs are.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) worker: PathBuf,
    pub(super) python: PathBuf,
    /// The command line program of stable-diffusion.cpp.
    pub(super) sdcpp: PathBuf,
}

impl Programs {
    /// The f16 files with random weights that stable-diffusion.cpp reads, as it cannot make up a model.
    pub(super) fn checkpoint(model: &str) -> PathBuf {
        workspace::target_dir().join("bench-models").join(format!("{model}-f16"))
    }
}

/// A program with the settings that it is measured with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Contender {
    pub(super) program: Program,
    pub(super) dtype: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Program {
    Worker,
    /// PyTorch with this memory layout.
    Torch(String),
    /// stable-diffusion.cpp with its default flags or with those that promise speed.
    Sdcpp(&'static str),
}

impl Program {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Worker => "sd-worker",
            Self::Torch(_) => "torch",
            Self::Sdcpp(_) => "stable-diffusion.cpp",
        }
    }
}

impl Contender {
    /// sd-worker in each number format, then the others.
    pub(super) fn all(options: &Options) -> Vec<Self> {
        let mut programs = vec![Program::Worker];
        if options.vs_torch {
            programs.extend(options.layouts.iter().cloned().map(Program::Torch));
        }
        let with_each = |program: Program| {
            options.dtypes.iter().map(move |dtype| Self { program: program.clone(), dtype: dtype.clone() })
        };
        let mut all: Vec<Self> = programs.into_iter().flat_map(with_each).collect();
        if options.vs_sdcpp.is_some() {
            let with_flags = |flags| Self { program: Program::Sdcpp(flags), dtype: "f16".to_owned() };
            all.extend(["default", "faster"].map(with_flags));
        }
        all
    }

    /// What the tables call it.
    pub(super) fn label(&self) -> String {
        let setting = self.setting().map(|setting| format!(" {setting}")).unwrap_or_default();
        format!("{} {}{setting}", self.program.name(), self.dtype)
    }

    /// What tells it from others of the same program and number format.
    pub(super) fn setting(&self) -> Option<&str> {
        match &self.program {
            Program::Worker => None,
            Program::Torch(setting) => Some(setting),
            Program::Sdcpp(setting) => Some(setting),
        }
    }

    pub(super) fn command(&self, case: &Case, programs: &Programs, options: &Options) -> Command {
        let mut command = match &self.program {
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
            Program::Sdcpp(flags) => {
                let mut command = Command::new(&programs.python);
                command.arg("tools/bench/sdcpp_baseline.py").arg(&programs.sdcpp);
                command.arg("--model").arg(Programs::checkpoint(&case.model)).args(["--flags", flags]);
                command
            }
        };
        if !matches!(self.program, Program::Sdcpp(_)) {
            command.args(["--random", &case.model, "--dtype", &self.dtype]);
        }
        command.arg("--json").args(["--parts", &options.parts.join(",")]);
        for (flag, number) in [
            ("--size", case.size),
            ("--threads", case.threads),
            ("--iterations", options.iterations),
            ("--warmup", options.warmup),
            ("--steps", options.steps),
        ] {
            command.arg(flag).arg(number.to_string());
        }
        command
    }
}
