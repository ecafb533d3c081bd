//! What the worker is told: one TOML file, above it the environment, above that the flags.
//!
//! The keys of the file are the long flags of `sd-worker serve`, whichever those are: what the file says and nothing above
//! it is read as if it stood on the command line, so that one parser checks all three layers and how they fit together. Beside
//! them the file may have tables of models ([`tables`]).

pub(crate) mod environment;
mod file;
mod print;
mod reference;
mod tables;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, CommandFactory, FromArgMatches};

use crate::args::{self, Cli, ServeArgs};
use crate::exit::Failure;
use crate::jobs::args::without_loading;
use file::{ConfigFile, Entry};

pub(crate) use print::run;

/// The commands that follow the configuration.
const FOLLOWERS: [&str; 2] = ["serve", "config"];
/// Flags that are no keys.
const NO_KEYS: [&str; 3] = ["config", "help", "version"];
/// How alike a misspelt key must be to be taken for a known one, 0 to 1.
const ALIKE: f64 = 0.8;

/// Where the file is.
#[derive(Debug, Args)]
pub(crate) struct FileArgs {
    /// The configuration file [default: the first that is there of $XDG_CONFIG_HOME/sd-worker/config.toml (or
    /// ~/.config/...) and /etc/sd-worker/config.toml].
    #[arg(long, env = "SD_WORKER_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// `sd-worker config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// The flags of `serve`: what it would be told with them is printed.
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
    /// Print one JSON object instead of TOML.
    #[arg(long, env = "SD_WORKER_JSON")]
    pub(crate) json: bool,
    /// Print the reference of all keys as Markdown instead.
    #[arg(long, env = "SD_WORKER_REFERENCE")]
    pub(crate) reference: bool,
}

/// The command line with the values of all layers, and where each comes from.
#[derive(Debug)]
pub(crate) struct Configured {
    pub(crate) cli: Cli,
    /// The names of the flags that stand on the command line itself.
    pub(crate) explicit: Vec<String>,
    pub(crate) settings: Settings,
}

/// What the commands that follow the configuration are told. Empty for the others.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) file: Option<PathBuf>,
    pub(crate) settings: Vec<Setting>,
    /// The keys of each `[[models]]`.
    pub(crate) models: Vec<Vec<Setting>>,
    /// What is not wrong but should be known.
    pub(crate) warnings: Vec<String>,
}

/// One key and what it is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) key: String,
    pub(crate) form: Form,
    /// As a flag would have them; none where the key is not set.
    pub(crate) values: Vec<String>,
    pub(crate) source: Source,
    pub(crate) is_secret: bool,
}

/// How a value is written in TOML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Switch,
    Number,
    Text,
    List,
}

/// Where a value comes from, the weakest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// There is none, or the one that is built in.
    Default,
    /// In a table of a model: that of the worker.
    Worker,
    /// `FILE:LINE`.
    File(String),
    /// The name of the variable.
    Environment(String),
    Flag,
}

/// Why there is no configuration.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// The command line or the environment is wrong, or only help was asked for.
    CommandLine(clap::Error),
    /// The file is.
    File(Failure),
}

/// Reads all layers.
pub(crate) fn load(arguments: &[OsString]) -> Result<Configured, Unusable> {
    let (first, missing) = above_the_file(arguments)?;
    let followed = first.subcommand().filter(|(name, _)| FOLLOWERS.contains(name));
    let Some((name, given)) = followed else {
        return match missing {
            Some(error) => Err(Unusable::CommandLine(error)),
            None => {
                let cli = Cli::from_arg_matches(&first).map_err(Unusable::CommandLine)?;
                Ok(Configured { cli, explicit: explicit(&first), settings: Settings::default() })
            }
        };
    };
    let named = given.get_one::<PathBuf>("config").map(PathBuf::as_path);
    let file = ConfigFile::find(named).map_err(Unusable::File)?;
    let keys = keys();
    let entries = match &file {
        Some(file) => check(file, &file.entries, &keys).map_err(Unusable::File)?,
        None => Vec::new(),
    };
    let above = |id: &str| {
        matches!(given.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    };
    let below: Vec<(&Arg, &Entry)> =
        entries.into_iter().filter(|(arg, _)| !above(arg.get_id().as_str())).collect();
    let flags = below.iter().flat_map(|(arg, entry)| flags(arg, entry));
    let all: Vec<OsString> = arguments.iter().cloned().chain(flags).collect();
    // A list in the file stands there item by item.
    let whole =
        |arg: Arg| match below.iter().any(|(other, entry)| other.get_id() == arg.get_id() && entry.is_list) {
            true => arg.value_delimiter(None),
            false => arg,
        };
    let command = Cli::command().mut_args(whole).mut_subcommand(name, |command| command.mut_args(whole));
    let (mut cli, matches) = command
        .try_get_matches_from(all)
        .and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)))
        .map_err(|error| match file.as_ref().filter(|_| !below.is_empty()) {
            Some(file) => Unusable::File(blame(error, file, &below)),
            None => Unusable::CommandLine(error),
        })?;
    let merged = matches.subcommand().map_or(&matches, |(_, merged)| merged);
    let mut settings: Vec<Setting> =
        keys.iter().map(|key| setting(key, merged, file.as_ref(), &below)).collect();
    let models = match &file {
        Some(file) => with_tables(&mut cli, file, merged, &mut settings).map_err(Unusable::File)?,
        None => Vec::new(),
    };
    let warnings = file.as_ref().and_then(|file| exposed(file, &settings)).into_iter().collect();
    let settings = Settings { file: file.map(|file| file.path), settings, models, warnings };
    Ok(Configured { cli, explicit: explicit(&first), settings })
}

/// Gives the service the models of the file's tables; the keys of each table.
fn with_tables(
    cli: &mut Cli,
    file: &ConfigFile,
    given: &ArgMatches,
    settings: &mut [Setting],
) -> Result<Vec<Vec<Setting>>, Failure> {
    let (models, keys) = tables::read(file, given)?;
    let args = match &mut cli.command {
        args::Command::Serve(args) => args,
        args::Command::Config(args) => &mut args.serve,
        _ => return Ok(keys),
    };
    tables::add(models, args, file, given, settings)?;
    Ok(keys)
}

/// What environment and command line say. That a flag lacks another beside it is no error yet: the file may have it.
fn above_the_file(arguments: &[OsString]) -> Result<(ArgMatches, Option<clap::Error>), Unusable> {
    match without_loading(Cli::command()).try_get_matches_from(arguments) {
        Ok(matches) => Ok((matches, None)),
        Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
            let lenient = Cli::command().ignore_errors(true);
            let matches = lenient.try_get_matches_from(arguments).map_err(Unusable::CommandLine)?;
            Ok((matches, Some(error)))
        }
        Err(error) => Err(Unusable::CommandLine(error)),
    }
}

/// An entry as flags.
fn flags(arg: &Arg, entry: &Entry) -> Vec<OsString> {
    let key = &entry.key;
    match (form(arg), &entry.values[..]) {
        (Form::Switch, [value]) if value == "false" => Vec::new(),
        (Form::Switch, _) => vec![format!("--{key}").into()],
        (_, values) => values.iter().map(|value| format!("--{key}={value}").into()).collect(),
    }
}

/// The flags that stand on the command line, of the innermost command.
fn explicit(matches: &ArgMatches) -> Vec<String> {
    let mut innermost = matches;
    while let Some((_, inner)) = innermost.subcommand() {
        innermost = inner;
    }
    let on_line = |id: &str| innermost.value_source(id) == Some(ValueSource::CommandLine);
    innermost.ids().map(|id| id.as_str().to_owned()).filter(|id| on_line(id)).collect()
}

/// The flags that are keys: those of `serve`, and those of every command.
fn keys() -> Vec<Arg> {
    let mut cli = Cli::command();
    // Flags of every command are handed down, and all know their final forms.
    cli.build();
    let own = cli.find_subcommand("serve").into_iter().flat_map(Command::get_arguments);
    own.filter(|arg| key(arg).is_some()).cloned().collect()
}

fn key(arg: &Arg) -> Option<&str> {
    arg.get_long().filter(|long| !NO_KEYS.contains(long))
}

/// Finds the flag of each entry. All entries without one are told at once.
fn check<'a>(
    file: &ConfigFile,
    entries: &'a [Entry],
    keys: &'a [Arg],
) -> Result<Vec<(&'a Arg, &'a Entry)>, Failure> {
    let mut known = Vec::new();
    let mut faults = Vec::new();
    for entry in entries {
        let fault = match keys.iter().find(|arg| key(arg) == Some(&entry.key)) {
            None => format!("there is no key `{}`{}", entry.key, suggestion(&entry.key, keys)),
            Some(arg) if entry.is_list && form(arg) != Form::List => {
                format!("{} takes one value, not a list", entry.key)
            }
            Some(arg)
                if form(arg) == Form::Switch && !["true", "false"].contains(&entry.values[0].as_str()) =>
            {
                format!("{} must be true or false", entry.key)
            }
            Some(arg) => {
                known.push((arg, entry));
                continue;
            }
        };
        faults.push(format!("configuration {}: {fault}", file.place(entry)));
    }
    if faults.is_empty() { Ok(known) } else { Err(Failure::refused(faults.join("\n"))) }
}

fn suggestion(wrong: &str, keys: &[Arg]) -> String {
    let flag = wrong.replace('_', "-");
    if let Some(meant) =
        keys.iter().find(|arg| arg.get_all_aliases().is_some_and(|names| names.contains(&&*flag)))
    {
        return format!(", it is called `{}`", key(meant).unwrap_or_default());
    }
    let rated = keys.iter().filter_map(|arg| Some((strsim::jaro_winkler(&flag, key(arg)?), key(arg)?)));
    match rated.max_by(|(a, _), (b, _)| a.total_cmp(b)) {
        Some((score, meant)) if score >= ALIKE => format!(", did you mean `{meant}`?"),
        _ => ", `sd-worker config` lists all".into(),
    }
}

/// An error that came with the file's values: without them there was none, or one that they may mend.
fn blame(error: clap::Error, file: &ConfigFile, below: &[(&Arg, &Entry)]) -> Failure {
    let told = |kind: ContextKind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let flag = told(ContextKind::InvalidArg);
    let entry = below.iter().find(|(arg, _)| Some(arg.to_string()) == flag);
    let (Some((arg, entry)), Some(value)) = (entry, told(ContextKind::InvalidValue)) else {
        // It is about several flags, or about one that lacks another.
        let text = error.to_string();
        let reason = text.strip_prefix("error: ").unwrap_or(&text).split("\n\n").next().unwrap_or_default();
        let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
        return Failure::refused(format!(
            "configuration {} with environment and flags: {reason}",
            file.path.display()
        ));
    };
    let value = if arg.is_hide_env_values_set() { String::new() } else { format!(" `{value}`") };
    let possible: Vec<String> =
        arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let reason = match std::error::Error::source(&error) {
        Some(source) => format!(": {source}"),
        None if !possible.is_empty() => format!(": known are {}", possible.join(", ")),
        None => String::new(),
    };
    Failure::refused(format!(
        "configuration {}: {}:{value} cannot be used{reason}",
        file.place(entry),
        entry.key
    ))
}

fn setting(arg: &Arg, given: &ArgMatches, file: Option<&ConfigFile>, below: &[(&Arg, &Entry)]) -> Setting {
    let id = arg.get_id().as_str();
    let entry = below.iter().find(|(other, _)| other.get_id() == arg.get_id()).map(|(_, entry)| *entry);
    let source = match (entry, file, given.value_source(id)) {
        (Some(entry), Some(file), _) => Source::File(file.place(entry)),
        (_, _, Some(ValueSource::CommandLine)) => Source::Flag,
        (_, _, Some(ValueSource::EnvVariable)) => Source::Environment(variable(arg)),
        _ => Source::Default,
    };
    let raw = given.get_raw(id).into_iter().flatten();
    Setting {
        key: key(arg).unwrap_or_default().to_owned(),
        form: form(arg),
        values: raw.map(|value| value.to_string_lossy().into_owned()).collect(),
        source,
        is_secret: arg.is_hide_env_values_set(),
    }
}

fn variable(arg: &Arg) -> String {
    arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn form(arg: &Arg) -> Form {
    use std::any::TypeId;
    let numbers = [
        TypeId::of::<u8>(),
        TypeId::of::<u16>(),
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<usize>(),
        TypeId::of::<f64>(),
    ];
    let value = arg.get_value_parser().type_id();
    match arg.get_action() {
        ArgAction::SetTrue | ArgAction::SetFalse => Form::Switch,
        ArgAction::Append => Form::List,
        _ if numbers.iter().any(|number| value == *number) => Form::Number,
        _ => Form::Text,
    }
}

/// Warns of a secret in a file that everybody may read.
fn exposed(file: &ConfigFile, settings: &[Setting]) -> Option<String> {
    let secret =
        settings.iter().find(|setting| setting.is_secret && matches!(setting.source, Source::File(_)))?;
    file.is_open_to_others().then(|| {
        let (key, path) = (&secret.key, file.path.display());
        format!("{path} holds {key} and can be read by others than its owner: chmod 600 {path}")
    })
}

#[cfg(test)]
mod tests;
