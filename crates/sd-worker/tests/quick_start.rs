//! What `docs/quick-start.md` says of mistakes, row by row.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const GUIDE: &str = include_str!("../../../docs/quick-start.md");
const TABLE: &str = "| asked for | said, with exit code 2 |\n|---|---|\n";

/// What stands in backticks.
fn code(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The demonstration model with the number that the table tells of.
fn a_model_with_a_broken_schedule(target: &Path) {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    copy(&demo, target);
    let file = target.join("scheduler/scheduler_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config["beta_start"] = (-1).into();
    std::fs::write(file, config.to_string()).unwrap();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// Every mistake of the table ends with code 2, and what the table quotes is said; dots stand for what it leaves out.
#[test]
fn mistakes_are_told_as_the_guide_says() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("docs")).unwrap();
    a_model_with_a_broken_schedule(&folder.path().join("broken"));
    let (_, table) = GUIDE.split_once(TABLE).unwrap();
    let rows: Vec<&str> = table.lines().take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let [asked, said] = row.trim_matches('|').split('|').collect::<Vec<_>>()[..] else {
            panic!("{row} has not two cells")
        };
        // A port that is free, should the worker start all the same.
        let asked = code(asked).next().unwrap().replace(":8600", ":0");
        let mut arguments: Vec<&str> = asked.split(' ').map(|word| word.trim_matches('"')).collect();
        if asked.starts_with("--") {
            arguments.splice(0..0, ["generate", "x"]);
        }
        let output = Command::new(env!("CARGO_BIN_EXE_sd-worker"))
            .args(&arguments)
            // As on most processors, whatever this one multiplies.
            .env("SD_WORKER_DTYPE", "f32")
            .current_dir(folder.path())
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{row}: {message}");
        for part in code(said).flat_map(|quoted| quoted.split("...")) {
            assert!(message.contains(part.trim()), "{row}: {message}");
        }
    }
}
