//! Python environments under `target/`, made from a pinned requirements file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Failure, Result, run, succeeds};

/// A virtual environment at `folder` with what `requirements` names; made only when it is missing or the file changed.
///
/// Returns the path of its Python.
pub(crate) fn environment(folder: &Path, requirements: &Path) -> Result<PathBuf> {
    let wanted = fs::read_to_string(requirements)
        .map_err(|error| Failure::new(format!("{}: {error}", requirements.display())))?;
    let python = folder.join("bin/python");
    let stamp = folder.join("requirements.installed");
    if python.exists() && fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }

    let base = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    if !succeeds(Command::new(&base).args(["-c", "import ensurepip, venv"])) {
        return Err(Failure::new(
            "Python 3 with venv is missing: `apt-get install python3-venv`, or name another Python with PYTHON=",
        ));
    }
    run(Command::new(&base).args(["-m", "venv"]).arg(folder))?;
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off", "--quiet"]);
    run(install.arg("--requirement").arg(requirements)).map_err(|failure| {
        Failure::new(format!(
            "the Python packages of {} could not be installed (is PyPI reachable?): {failure}",
            requirements.display()
        ))
    })?;
    fs::write(&stamp, wanted)?;
    Ok(python)
}
