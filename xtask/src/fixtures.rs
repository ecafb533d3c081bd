//! `cargo xtask fixtures`: makes the expected values of the parity tests again.

use std::process::Command;

use crate::process::{Result, run as run_command};
use crate::{python, workspace};

pub(crate) const HELP: &str = "Make the parity fixtures again with the pinned Python reference\n\
     Arguments go to tools/reference/make_fixtures.py, such as --only noise; PYTHON= names another Python";

pub(crate) fn run(arguments: &[String]) -> Result {
    let root = workspace::root();
    let environment = workspace::target_dir().join("python-reference");
    let python = python::environment(&environment, &root.join("tools/reference/requirements.txt"))?;
    // Packages whose own dependencies, training frameworks among them, the tool does not need.
    let alone = root.join("tools/reference/requirements-alone.txt");
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--no-deps"]);
    run_command(install.arg("--requirement").arg(alone))?;
    let mut command = Command::new(python);
    command.arg("tools/reference/make_fixtures.py").args(["--output", "fixtures"]).args(arguments);
    run_command(command.current_dir(root))
}
