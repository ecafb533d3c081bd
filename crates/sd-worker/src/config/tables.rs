//! `[[models]]`: models of the configuration file that have settings of their own.
//!
//! The keys of a table are those flags of `serve` that say how a model is loaded. What a table does not say is as for every
//! further model of `--model`: the worker's where that counts for all models, and nothing where it belongs to one.

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};

use super::file::{ConfigFile, Table};
use super::{Setting, Source, blame, check, flags, key, setting};
use crate::args::ServeArgs;
use crate::exit::Failure;
use crate::model_set::ModelSetup;

/// The key of the file.
pub(super) const KEY: &str = "models";
/// The key of a table that must be there.
const MODEL: &str = "model";

/// Settings of the whole worker: no keys of a table.
const OF_THE_WORKER: [&str; 3] = ["device", "memory-limit", "models-file"];
/// Settings that count for all models, unless a table says otherwise.
const SHARED: [&str; 5] = ["dtype", "vae-tiling", "embeddings-dir", "upscaler", "lora-dir"];

/// The keys of a table.
pub(super) fn keys() -> Vec<Arg> {
    let mut command = command();
    command.build();
    let is_key = |arg: &&Arg| key(arg).is_some_and(|key| !OF_THE_WORKER.contains(&key));
    command.get_arguments().filter(is_key).cloned().collect()
}

/// What a table is when it says nothing of a key, in words.
pub(super) fn otherwise(key: &str) -> &'static str {
    match key {
        "name" => "what `model` says",
        MODEL => "it must be there",
        shared if SHARED.contains(&shared) => "the worker's",
        _ => "none",
    }
}

/// How a table is read: as flags, of which none is an environment variable.
fn command() -> Command {
    let plain = |arg: Arg| {
        let arg = arg.env(None::<&'static str>).value_delimiter(None).visible_alias(None::<&'static str>);
        match arg.get_id() == MODEL {
            true => arg.action(ArgAction::Set).default_value(None::<&'static str>),
            false => arg,
        }
    };
    ModelSetup::command().mut_args(plain)
}

/// Reads the tables: the models, and the keys of each. `given` is what `serve` is told beside them.
pub(super) fn read(
    file: &ConfigFile,
    given: &ArgMatches,
) -> Result<(Vec<ModelSetup>, Vec<Vec<Setting>>), Failure> {
    let keys = keys();
    let tables: Result<Vec<_>, Failure> =
        file.tables.iter().map(|table| one(file, table, &keys, given)).collect();
    Ok(tables?.into_iter().unzip())
}

fn one(
    file: &ConfigFile,
    table: &Table,
    keys: &[Arg],
    given: &ArgMatches,
) -> Result<(ModelSetup, Vec<Setting>), Failure> {
    let entries = check(file, &table.entries, keys)?;
    let says = |id: &str| entries.iter().any(|(arg, _)| arg.get_id() == id);
    if !says(MODEL) {
        let place = file.line(table.line);
        return Err(Failure::refused(format!("configuration {place}: [[{KEY}]] lacks the key `{MODEL}`")));
    }
    let own = entries.iter().flat_map(|(arg, entry)| flags(arg, entry));
    let all: Vec<OsString> = own.chain(inherited(given, &says)).collect();
    let (model, matches) = command()
        .try_get_matches_from(all)
        .and_then(|matches| Ok((ModelSetup::from_arg_matches(&matches)?, matches)))
        .map_err(|error| blame(error, file, &entries))?;
    let settings = keys.iter().map(|arg| {
        let told = setting(arg, &matches, Some(file), &entries);
        match told.source {
            Source::Flag => Setting { source: Source::Worker, ..told },
            _ => told,
        }
    });
    Ok((model, settings.collect()))
}

/// What a table takes over from the worker.
fn inherited(given: &ArgMatches, says: &impl Fn(&str) -> bool) -> Vec<OsString> {
    let id = |key: &str| key.replace('-', "_");
    let taken = SHARED.iter().filter(|key| !says(&id(key))).chain(&OF_THE_WORKER);
    let values = |key: &&str| {
        let raw = given.get_raw(&id(key)).into_iter().flatten();
        let flag = |value: &std::ffi::OsStr| {
            let mut flag = OsString::from(format!("--{key}="));
            flag.push(value);
            flag
        };
        raw.map(flag).collect::<Vec<_>>()
    };
    taken.flat_map(values).collect()
}

/// Puts the models of the tables beside those that `model` names. If no layer names one, the tables are all there is; what
/// belongs to one model has its place in them then.
pub(super) fn add(
    models: Vec<ModelSetup>,
    args: &mut ServeArgs,
    file: &ConfigFile,
    given: &ArgMatches,
    settings: &mut [Setting],
) -> Result<(), Failure> {
    args.further = models;
    if args.further.is_empty() || given.value_source(MODEL) != Some(ValueSource::DefaultValue) {
        return Ok(());
    }
    args.model.model.clear();
    let keys = keys();
    let mut misplaced = Vec::new();
    for setting in settings {
        let of_one =
            keys.iter().any(|arg| key(arg) == Some(&setting.key)) && !SHARED.contains(&&*setting.key);
        if setting.key == MODEL {
            setting.values.clear();
        } else if of_one && !setting.values.is_empty() {
            misplaced.push(setting.key.as_str());
        }
    }
    if misplaced.is_empty() {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "configuration {}: {}: belongs to one model; where [[{KEY}]] are all models that there are, it stands in one of them",
        file.path.display(),
        misplaced.join(", ")
    )))
}
