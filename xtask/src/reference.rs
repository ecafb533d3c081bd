//! `cargo xtask reference`: the part of the documentation that the code writes.

use crate::process::{Failure, Result, cargo};
use crate::workspace;

pub(crate) const HELP: &str = "Write the table of docs/configuration.md from the worker's flags\n\
     A test of sd-worker fails while the table is not what the flags say";

/// The table stands between these lines.
const BEGIN: &str = "<!-- table: cargo xtask reference -->\n";
const END: &str = "<!-- end of the table -->";

pub(crate) fn run(arguments: &[String]) -> Result {
    if let Some(argument) = arguments.first() {
        return Err(Failure::new(format!(
            "`{argument}` is not understood: cargo xtask reference takes nothing"
        )));
    }
    let output =
        cargo(["run", "--quiet", "--package", "sd-worker", "--", "config", "--reference"]).output()?;
    let table = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(Failure::new(String::from_utf8_lossy(&output.stderr)));
    }
    let path = workspace::root().join("docs/configuration.md");
    let page = std::fs::read_to_string(&path)?;
    let around = page.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let Some((before, after)) = around else {
        return Err(Failure::new(format!("{} has no lines `{}` and `{END}`", path.display(), BEGIN.trim())));
    };
    std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}"))?;
    println!("wrote {}", path.display());
    Ok(())
}
