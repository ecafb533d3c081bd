//! Libraries that stand between the worker and the C library, for what no test can bring about otherwise.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `tests/support/NAME.c` into the folder, by the compiler that SQLite is compiled by.
pub(crate) fn library(name: &str, folder: &Path) -> PathBuf {
    let source =
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support")).join(name).with_extension("c");
    let library = folder.join(name).with_extension("so");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let compiled = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status()
        .unwrap_or_else(|error| panic!("{compiler}: {error}"));
    assert!(compiled.success());
    library
}
