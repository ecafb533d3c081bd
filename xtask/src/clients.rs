//! The worker tested with clients that others wrote, in Python.

use std::process::Command;

use crate::process::{Result, cargo, run, run_and_keep};
use crate::{python, workspace};

/// Builds the worker and runs the tests of `tools/clients`. Gives what they printed, because failed ones count too.
pub(crate) fn run_all() -> (Result, String) {
    match prepared() {
        Ok(mut tests) => run_and_keep(&mut tests),
        Err(failure) => (Err(failure), String::new()),
    }
}

fn prepared() -> Result<Command> {
    let root = workspace::root();
    let clients = root.join("tools/clients");
    let environment = workspace::target_dir().join("python-clients");
    let python = python::environment(&environment, &clients.join("requirements.txt"))?;
    // With the features that it has when everything is built, so that nothing is compiled twice.
    run(&mut cargo(["build", "--workspace", "--bin", "sd-worker", "--locked"]))?;
    let worker =
        workspace::target_dir().join("debug/sd-worker").with_extension(std::env::consts::EXE_EXTENSION);
    let mut tests = Command::new(python);
    tests.args(["-m", "unittest", "discover", "--verbose"]).current_dir(clients);
    tests.env("SD_WORKER", worker).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(tests)
}
