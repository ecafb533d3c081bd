//! Runs every example of every crate: an example that does not run teaches something wrong.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::process::{Failure, Result, cargo, run};
use crate::workspace;

/// Runs `crates/*/examples/*.rs`, each without arguments and with an empty folder as its working directory.
///
/// An example that starts adds one to `passed`. All are run before a failure is returned.
pub(crate) fn run_all(passed: &mut u64) -> Result {
    // For the whole workspace at once: built one package at a time, dependencies have other features and all of them
    // would be compiled anew.
    run(&mut cargo(["build", "--workspace", "--examples", "--locked"]))?;
    let programs = workspace::target_dir().join("debug/examples");
    let mut failed = Vec::new();
    for (package, example) in find()? {
        let folder = workspace::target_dir().join("examples-run").join(&example);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        println!("example {package}/{example}");
        let program = programs.join(&example).with_extension(std::env::consts::EXE_EXTENSION);
        match run(Command::new(program).current_dir(&folder)) {
            Ok(()) => *passed += 1,
            Err(failure) => failed.push(failure.to_string()),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::new(failed.join("; "))) }
}

/// Package and name of every example, in order.
fn find() -> Result<Vec<(String, String)>> {
    let mut examples = Vec::new();
    for package in fs::read_dir(workspace::root().join("crates"))? {
        let package = package?;
        let Ok(files) = fs::read_dir(package.path().join("examples")) else { continue };
        for file in files {
            examples.extend(name(&file?.path()).map(|name| (lossy(package.file_name()), name)));
        }
    }
    examples.sort();
    Ok(examples)
}

/// The name that cargo gives an example: a file `name.rs` or a folder `name` with a `main.rs`.
fn name(path: &Path) -> Option<String> {
    let is_example = path.extension().is_some_and(|e| e == "rs") || path.join("main.rs").is_file();
    is_example.then(|| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()))?
}

fn lossy(name: std::ffi::OsString) -> String {
    name.to_string_lossy().into_owned()
}
