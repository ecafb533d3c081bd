//! `sd-worker models list`: the known names and what the hub cache holds.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use indicatif::DecimalBytes;
use sd_inference::ModelFiles;
use sd_inference::inspect;
use sd_inference::registry::Registry;
use serde::Serialize;
use serde_json::json;

use super::args::ListArgs;
use super::size_of;
use crate::exit::{Failure, say};
use crate::{demo, model};

/// One model that could be used.
#[derive(Debug, Serialize)]
struct Row {
    /// The known name, if it has one.
    name: Option<String>,
    /// The repository, folder or file.
    model: String,
    /// Whether it is on this machine.
    present: bool,
    /// Bytes that it takes there.
    bytes: Option<u64>,
    /// The family, where the files tell.
    family: Option<String>,
}

pub(crate) fn run(args: &ListArgs) -> Result<(), Failure> {
    let registry = model::registry(args.models_file.as_deref())?;
    let mut rows = vec![Row {
        name: Some(demo::NAME.into()),
        model: "built in".into(),
        present: true,
        bytes: None,
        family: family(&demo::files()),
    }];
    let mut cached = cached(&registry);
    for (name, entry) in registry.entries() {
        let bytes = cached.remove(&entry.model);
        let path = Path::new(&entry.model);
        let files = registry.open(name, None, None).ok();
        rows.push(Row {
            name: Some(name.to_owned()),
            model: entry.model.clone(),
            present: files.is_some() || registry.snapshot(&entry.model).is_some(),
            bytes: bytes
                .or_else(|| fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|file| file.len())),
            family: files.as_ref().and_then(family),
        });
    }
    for (repository, bytes) in cached {
        let files = registry.open(&repository, None, None).ok();
        // Other tools keep other things in the same cache.
        if let Some(files) = files {
            let family = family(&files);
            rows.push(Row { name: None, model: repository, present: true, bytes: Some(bytes), family });
        }
    }
    if args.json {
        return say(json!({"cache": registry.cache(), "models": rows}));
    }
    match registry.cache() {
        Some(cache) => say(format!("hub cache: {}", cache.display()))?,
        None => say("hub cache: none (set HF_HOME)")?,
    }
    let width = rows.iter().map(|row| row.model.len()).max().unwrap_or(0);
    for row in rows {
        let name = row.name.unwrap_or_default();
        let state = match (row.present, row.bytes) {
            (true, Some(bytes)) => DecimalBytes(bytes).to_string(),
            (true, None) => "present".into(),
            (false, Some(_)) => "incomplete".into(),
            (false, None) => "-".into(),
        };
        let line =
            format!("{name:<16}{:<width$}  {state:>12}  {}", row.model, row.family.unwrap_or_default());
        say(line.trim_end())?;
    }
    Ok(())
}

fn family(files: &ModelFiles) -> Option<String> {
    let found = inspect::model(files).ok()?;
    let family = found.family?;
    Some(if found.inpainting { format!("{family}, inpainting") } else { family.to_owned() })
}

/// The repositories with models in the cache, with the bytes that each takes.
fn cached(registry: &Registry) -> BTreeMap<String, u64> {
    let entries = registry.cache().and_then(|cache| fs::read_dir(cache).ok());
    let repository = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        // The first pair of dashes stands for the slash.
        let (owner, model) = name.strip_prefix("models--")?.split_once("--")?;
        Some((format!("{owner}/{model}"), size_of(&entry.path()).ok()?))
    };
    entries.into_iter().flatten().filter_map(|entry| repository(entry.ok()?)).collect()
}
