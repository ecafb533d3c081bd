//! `cargo xtask test schemathesis`: requests that a program makes up from the OpenAPI document.

use std::process::Command;

use crate::process::{Result, run};
use crate::served::Served;
use crate::{python, workspace};

/// Any token: with one, the tool can see whether it is asked for.
const TOKEN: &str = "schemathesis";

/// Starts a worker and lets schemathesis loose on it: no answer may be a 5xx, undocumented, or of another form than the
/// document says, and what the document forbids must be refused.
pub(crate) fn check() -> Result {
    let tools = workspace::root().join("tools/openapi");
    let environment = workspace::target_dir().join("python/openapi");
    let python = python::environment(&environment, &tools.join("requirements.txt"))?;
    // A model so small that every request which is accepted is over at once, by a name without slashes: the tool builds no
    // addresses with them.
    let models = workspace::root().join("fixtures/sd15");
    let worker = Served::start(&models, &["--token", TOKEN, "--model", "model"])?;
    let mut command = Command::new(python.with_file_name("schemathesis"));
    command
        .current_dir(workspace::target_dir())
        .arg("--config-file")
        .arg(tools.join("schemathesis.toml"))
        .args(["run", "--no-color", "--wait-for-schema", "60"])
        .arg(format!("{}/openapi.json", worker.url()));
    run(command.env("SD_TOKEN", TOKEN))
}
