//! `sd-worker models remove`: a model out of the hub cache.

use std::fs;
use std::io::{IsTerminal, Write};

use indicatif::DecimalBytes;

use super::args::RemoveArgs;
use super::{repository, size_of};
use crate::exit::{Failure, say};
use crate::model;

pub(crate) fn run(args: &RemoveArgs) -> Result<(), Failure> {
    let registry = model::registry(args.models_file.as_deref())?;
    let repository = repository(&registry, &args.model)?;
    let folder = registry
        .repository_folder(&repository)
        .filter(|folder| folder.is_dir())
        .ok_or_else(|| Failure::refused(format!("{repository} is not in the hub cache")))?;
    let bytes = size_of(&folder).map_err(Failure::failed)?;
    let what = format!("{} ({})", folder.display(), DecimalBytes(bytes));
    if !args.yes && !confirmed(&what)? {
        return Err(Failure::refused("nothing was removed"));
    }
    fs::remove_dir_all(&folder).map_err(|error| Failure::failed(format!("{}: {error}", folder.display())))?;
    say(format!("removed {what}"))
}

/// Asks on the terminal.
fn confirmed(what: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::refused(format!(
            "{what} is removed only with --yes, or when a terminal can be asked"
        )));
    }
    eprint!("remove {what}, which other programs may share? [y/N] ");
    std::io::stderr().flush().map_err(Failure::failed)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(Failure::failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
