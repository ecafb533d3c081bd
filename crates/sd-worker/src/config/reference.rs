//! The reference of all keys, from what the flags say of themselves.

use clap::Arg;

use super::{Form, form, key, keys, tables};
use crate::reload;

/// All keys as Markdown tables, one row each.
pub(crate) fn table() -> String {
    let mut keys = keys();
    keys.sort_by(|a, b| key(a).cmp(&key(b)));
    let rows: Vec<String> = keys.iter().map(row).collect();
    let of_models: Vec<String> = tables::keys().iter().map(row_of_models).collect();
    format!(
        "| key | value | default | what it is |\n|---|---|---|---|\n{}\n\n\
         Keys of each `[[models]]`:\n\n| key | value | where a table does not say it |\n|---|---|---|\n{}",
        rows.join("\n"),
        of_models.join("\n")
    )
}

fn row_of_models(arg: &Arg) -> String {
    let key = key(arg).unwrap_or_default();
    format!("| `{key}` | {} | {} |", escaped(&value(arg)), tables::otherwise(key))
}

fn row(arg: &Arg) -> String {
    let key = key(arg).unwrap_or_default();
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    // Where the default is no value, the help says in words what it is.
    let (help, in_words) = match help.split_once(" [default: ").and_then(|(before, rest)| {
        let (words, after) = rest.rsplit_once(']')?;
        Some((format!("{before}{after}"), words.to_owned()))
    }) {
        Some((help, words)) => (help, words),
        None => (help, String::new()),
    };
    let mut text = if help.ends_with('.') { help } else { format!("{help}.") };
    if let Some(aliases) = arg.get_visible_aliases().filter(|aliases| !aliases.is_empty()) {
        text.push_str(&format!(" Also `--{}`.", aliases.join("`, `--")));
    }
    if arg.is_hide_env_values_set() {
        text.push_str(" A secret: it is never shown.");
    }
    if reload::takes(key) {
        text.push_str(" **SIGHUP** changes it.");
    }
    let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = match (form(arg), default.join(",")) {
        (Form::Switch, _) => "`false`".into(),
        (_, none) if none.is_empty() => in_words,
        (_, some) => format!("`{some}`"),
    };
    format!("| `{key}` | {} | {} | {} |", escaped(&value(arg)), escaped(&default), escaped(&text))
}

/// What may stand there.
fn value(arg: &Arg) -> String {
    let possible: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    let name = arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    match form(arg) {
        Form::Switch => "`true`, `false`".into(),
        Form::List => format!("list of {name}"),
        _ if !possible.is_empty() => possible.join(", "),
        Form::Number => "number".into(),
        Form::Text => name.into(),
    }
}

/// `|` would end the cell.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|")
}
