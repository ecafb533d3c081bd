//! `sd-worker models`: which models there are, what they are, and where they come from.

pub(crate) mod args;
mod convert;
mod hub;
mod inspect;
mod list;
mod pull;
mod remove;

use std::path::Path;

use sd_inference::registry::Registry;

use crate::demo;
use crate::exit::Failure;
use args::{ModelsArgs, ModelsCommand};

pub(crate) fn run(args: &ModelsArgs) -> Result<(), Failure> {
    match &args.command {
        ModelsCommand::List(args) => list::run(args),
        ModelsCommand::Pull(args) => pull::run(args),
        ModelsCommand::Inspect(args) => inspect::run(args),
        ModelsCommand::Convert(args) => convert::run(args),
        ModelsCommand::Remove(args) => remove::run(args),
    }
}

/// The hub repository that a name means, for what changes the cache.
fn repository(registry: &Registry, name: &str) -> Result<String, Failure> {
    match name {
        demo::NAME => Err(Failure::refused(format!(
            "{name}: the model is built into sd-worker: there is nothing to fetch or to remove"
        ))),
        name => registry.repository(name).map_err(Failure::refused),
    }
}

/// The bytes of all files under `folder`, links not followed.
fn size_of(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { size_of(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
