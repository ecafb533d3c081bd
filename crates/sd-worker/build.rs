//! Lists the files of the demonstration model for `include_bytes!`, so that the binary carries all of them.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Files that describe the model and are not read by it.
const LEFT_OUT: [&str; 2] = ["README.md", "eval.json"];

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../../models/demo");
    let root = root.canonicalize().map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("{}: the demonstration model is missing: {error}", root.display()),
        )
    })?;
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();

    let mut list = String::from("&[\n");
    for file in files {
        let name = file.strip_prefix(&root).unwrap_or(&file).to_string_lossy().replace('\\', "/");
        if !LEFT_OUT.contains(&name.as_str()) {
            list += &format!("    ({name:?}, include_bytes!({:?})),\n", file.display().to_string());
        }
    }
    list += "]\n";
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("demo_files.rs"), list)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { collect(&path, files)? } else { files.push(path) }
    }
    Ok(())
}
