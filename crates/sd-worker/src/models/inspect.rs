//! `sd-worker models inspect`: family, parts, precision, parameters and memory of a model or a part of one.

use std::path::Path;

use indicatif::DecimalBytes;
use sd_inference::inspect::{self, Inspection};
use sd_inference::{DType, LoadOptions, MemoryEstimate, MemoryLimit, ModelSource, Pipeline};
use serde_json::json;

use super::args::InspectArgs;
use crate::exit::{Failure, say};
use crate::model;

pub(crate) fn run(args: &InspectArgs) -> Result<(), Failure> {
    let path = Path::new(&args.model);
    if path.is_file() && !inspect::is_checkpoint(path).map_err(Failure::refused)? {
        return report_part(args, &inspect::file(path).map_err(Failure::refused)?);
    }
    if path.is_dir()
        && let Some(part) = inspect::part_folder(path).map_err(Failure::refused)?
    {
        return report_part(args, &part);
    }
    let files = model::files(&args.model, &args.place)?;
    let found = inspect::model(&files).map_err(Failure::refused)?;
    let source = ModelSource::Files(files);
    let estimate = |dtype| {
        let options = LoadOptions { dtype, memory: MemoryLimit::Off, ..LoadOptions::default() };
        Pipeline::estimate_memory(&source, &options)
    };
    // What cannot be run, or lacks a part, can be inspected all the same.
    let memory: Vec<_> = [("f32", DType::F32), ("bf16", DType::BF16)]
        .into_iter()
        .filter_map(|(name, dtype)| {
            let MemoryEstimate { weights, workspace, .. } = estimate(dtype).ok()?;
            Some(Needed { dtype: name, weights, workspace })
        })
        .collect();
    report(args, &found, &memory)
}

/// A part of a model takes the memory of its numbers, in the format that the model is loaded in; an upscaler always in f32.
fn report_part(args: &InspectArgs, found: &Inspection) -> Result<(), Failure> {
    let formats: &[(&'static str, u64)] =
        if found.kind == "upscaler" { &[("f32", 4)] } else { &[("f32", 4), ("bf16", 2)] };
    let needed = |(dtype, bytes): &(&'static str, u64)| Needed {
        dtype,
        weights: bytes * found.parameters(),
        workspace: 0,
    };
    report(args, found, &formats.iter().map(needed).collect::<Vec<_>>())
}

/// The memory for a number format, in bytes.
struct Needed {
    dtype: &'static str,
    weights: u64,
    /// To make a picture; none for what makes no picture by itself.
    workspace: u64,
}

impl Needed {
    fn total(&self) -> u64 {
        self.weights.saturating_add(self.workspace)
    }
}

fn report(args: &InspectArgs, found: &Inspection, memory: &[Needed]) -> Result<(), Failure> {
    if args.json {
        let memory: serde_json::Map<_, _> = memory
            .iter()
            .map(|needed| {
                let bytes = json!({"weights": needed.weights, "workspace": needed.workspace,
                                   "total": needed.total()});
                (needed.dtype.to_owned(), bytes)
            })
            .collect();
        let mut report = serde_json::to_value(found).map_err(Failure::failed)?;
        report["model"] = json!(args.model);
        report["parameters"] = json!(found.parameters());
        report["bytes"] = json!(found.bytes());
        report["memory"] = json!(memory);
        return say(report);
    }
    let mut title = format!("{}: {}", args.model, found.kind);
    for word in found
        .family
        .into_iter()
        .chain(found.inpainting.then_some("inpainting"))
        .chain(found.prediction.as_deref())
    {
        title += &format!(", {word}");
    }
    say(title)?;
    for part in &found.parts {
        let formats: Vec<&str> = part.formats.keys().map(String::as_str).collect();
        let parameters = millions(part.parameters);
        let size = DecimalBytes(part.bytes).to_string();
        say(format!("  {:<16}{parameters:>16}{size:>12}  {}", part.name, formats.join(", ")))?;
    }
    if found.parts.len() > 1 {
        let size = DecimalBytes(found.bytes()).to_string();
        say(format!("  {:<16}{:>16}{size:>12}", "together", millions(found.parameters())))?;
    }
    for needed in memory {
        let dtype = needed.dtype;
        if needed.workspace == 0 {
            say(format!("memory in {dtype}: {} of weights", DecimalBytes(needed.weights)))?;
            continue;
        }
        say(format!(
            "memory in {dtype}: {} ({} of weights, {} to make a picture)",
            DecimalBytes(needed.total()),
            DecimalBytes(needed.weights),
            DecimalBytes(needed.workspace)
        ))?;
    }
    Ok(())
}

fn millions(parameters: u64) -> String {
    match parameters {
        0..1_000_000 => format!("{parameters} numbers"),
        more => format!("{:.1} M numbers", more as f64 / 1e6),
    }
}
