//! `sd-worker config`: what `serve` would be told.

use serde_json::{Value, json};

use super::{ConfigArgs, Form, Setting, Settings, Source, reference};
use crate::exit::{Failure, say};

/// In the place of a secret.
const MASK: &str = "********";
/// Where comments begin, unless the value is longer.
const COMMENT_COLUMN: usize = 40;

/// Prints all keys with their values and where these come from.
pub(crate) fn run(args: &ConfigArgs, settings: &Settings) -> Result<(), Failure> {
    if args.reference {
        return say(reference::table());
    }
    for warning in &settings.warnings {
        eprintln!("warning: {warning}");
    }
    if args.json {
        return say(report(settings));
    }
    let file = settings.file.as_ref().map_or("none".into(), |path| path.display().to_string());
    say(format!("# Configuration file: {file}. The environment stands above it, flags above that."))?;
    settings.settings.iter().try_for_each(|setting| say(line(setting)))?;
    settings.models.iter().try_for_each(|table| {
        say("\n[[models]]")?;
        table.iter().try_for_each(|setting| say(line(setting)))
    })
}

/// One line of TOML. What is not set, and what must not be shown, is a comment.
fn line(setting: &Setting) -> String {
    let Setting { key, values, is_secret, .. } = setting;
    let text = match &values[..] {
        [] => format!("# {key} ="),
        _ if *is_secret => format!("# {key} = \"{MASK}\""),
        values
            if setting.source == Source::Worker
                || values.iter().any(|value| without_password(value).is_some()) =>
        {
            format!("# {key} = {}", written(setting))
        }
        _ => format!("{key} = {}", written(setting)),
    };
    let comment = match &setting.source {
        Source::Default if values.is_empty() => "not set".into(),
        Source::Default => "default".into(),
        Source::Worker => "the worker's".into(),
        Source::File(place) => place.clone(),
        Source::Environment(name) => name.clone(),
        Source::Flag => format!("--{key}"),
    };
    format!("{text:<COMMENT_COLUMN$}  # {comment}")
}

/// An address with a user and a password, without them. `None` for anything else.
fn without_password(value: &str) -> Option<String> {
    let (scheme, rest) = value.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let at = rest[..end].rfind('@')?;
    Some(format!("{scheme}://{MASK}{}", &rest[at..]))
}

fn shown(value: &str) -> String {
    without_password(value).unwrap_or_else(|| value.to_owned())
}

fn written(setting: &Setting) -> String {
    let text = |value: &String| toml::Value::String(shown(value)).to_string();
    match (setting.form, &setting.values[..]) {
        (Form::Switch | Form::Number, [value]) if value.parse::<toml::Value>().is_ok() => value.clone(),
        (Form::Switch | Form::Number | Form::Text, [value]) => text(value),
        (_, values) => format!("[{}]", values.iter().map(text).collect::<Vec<_>>().join(", ")),
    }
}

fn report(settings: &Settings) -> Value {
    let entry = |setting: &Setting| {
        let value = match (setting.form, &setting.values[..]) {
            (Form::List, values) => values.iter().map(|value| shown(value)).collect(),
            (_, []) => Value::Null,
            _ if setting.is_secret => json!(MASK),
            (Form::Switch | Form::Number, [value]) => serde_json::from_str(value).unwrap_or(json!(value)),
            (_, [value, ..]) => json!(shown(value)),
        };
        let (source, at) = match &setting.source {
            Source::Default => ("default", None),
            Source::Worker => ("worker", None),
            Source::File(place) => ("file", Some(place)),
            Source::Environment(name) => ("environment", Some(name)),
            Source::Flag => ("flag", None),
        };
        json!({"key": setting.key, "value": value, "source": source, "at": at, "secret": setting.is_secret})
    };
    let entries = |settings: &[Setting]| -> Vec<Value> { settings.iter().map(entry).collect() };
    let models: Vec<Vec<Value>> = settings.models.iter().map(|table| entries(table)).collect();
    json!({"file": settings.file, "settings": entries(&settings.settings), "models": models})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        for (value, expected) in [
            ("http://u:secret@host/path?a=b@c", Some("http://********@host/path?a=b@c")),
            ("https://token@[::1]:8600", Some("https://********@[::1]:8600")),
            ("http://host/a@b", None),
            ("http://host?to=a@b", None),
            ("name@example.org", None),
        ] {
            assert_eq!(without_password(value).as_deref(), expected, "{value}");
        }
    }
}
