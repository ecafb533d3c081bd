//! What the files of the repository must not contain.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::features::MAY_ASK;
use crate::metadata::root;

const MAX_LINES: usize = 600;

/// Unfinished work and forgotten merges. Split, so that this file does not contain them.
const FORBIDDEN: &[&str] = &[
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("db", "g!("),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("<<<<", "<<< "),
    concat!(">>>>", ">>> "),
];

/// Files that people write, as opposed to weights, vocabularies and recorded values.
const WRITTEN: &[&str] = &["rs", "py", "toml", "md", "sh", "ts", "tsx", "js", "css", "html", "yml", "yaml"];

#[test]
fn rust_files_stay_small() {
    let mut wrong = Vec::new();
    for path in files().iter().filter(|path| has_extension(path, &["rs"])) {
        let lines = read(path).lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("{}: {lines} lines, at most {MAX_LINES}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_unfinished_is_left() {
    let mut wrong = Vec::new();
    for path in files().iter().filter(|path| has_extension(path, WRITTEN) || path.starts_with(".ci")) {
        for (number, line) in read(path).lines().enumerate() {
            if let Some(word) = FORBIDDEN.iter().find(|word| line.contains(**word)) {
                wrong.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Weights are data, never a program: see SECURITY.md.
#[test]
fn no_pickle_is_kept() {
    let pickles = ["ckpt", "pt", "pth", "pkl", "pickle"];
    let wrong: Vec<_> = files().into_iter().filter(|path| has_extension(path, &pickles)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn only_the_lower_crates_ask_for_an_accelerator() {
    let mut wrong = Vec::new();
    for path in files().iter().filter(|path| path.starts_with("crates") && has_extension(path, &["rs"])) {
        if MAY_ASK.iter().any(|name| path.starts_with(Path::new("crates").join(name))) {
            continue;
        }
        for (number, line) in read(path).lines().enumerate() {
            let asks = ["cuda", "cudnn", "flash-attn", "metal"]
                .iter()
                .any(|a| line.contains(&format!("feature = \"{a}\"")));
            if asks && !line.trim_start().starts_with("//") {
                wrong.push(format!(
                    "{}:{}: above sd-models the device is a value",
                    path.display(),
                    number + 1
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The files that git tracks or would track, relative to the root; all files in a source archive without git.
fn files() -> Vec<PathBuf> {
    let mut command = Command::new("git");
    command.args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = command.current_dir(root()).output();
    let mut files: Vec<PathBuf> = match listed {
        Ok(output) if output.status.success() => {
            let names = String::from_utf8(output.stdout).unwrap();
            names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect()
        }
        _ => walk(Path::new("")),
    };
    // A deleted file that is still in the index is no file; a link may point anywhere.
    files.retain(|path| fs::symlink_metadata(root().join(path)).is_ok_and(|data| data.is_file()));
    files.sort();
    files.dedup();
    assert!(
        files.iter().any(|path| path == Path::new("Cargo.toml")),
        "the files of the repository were not found"
    );
    files
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = folder.join(entry.file_name());
        let generated =
            ["target", ".git", ".venv", "node_modules"].iter().any(|name| entry.file_name() == *name);
        if !generated && entry.file_type().unwrap().is_dir() {
            files.extend(walk(&path));
        } else if !generated {
            files.push(path);
        }
    }
    files
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|found| extensions.iter().any(|extension| found == *extension))
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(root().join(path)).unwrap()).into_owned()
}
