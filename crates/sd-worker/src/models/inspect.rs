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
        return report(args, &inspect::file(path).map_err(Failure::refused)?, &[]);
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
        .filter_map(|(name, dtype)| Some((name, estimate(dtype).ok()?)))
        .collect();
    report(args, &found, &memory)
}

fn report(args: &InspectArgs, found: &Inspection, memory: &[(&str, MemoryEstimate)]) -> Result<(), Failure> {
    if args.json {
        let memory: serde_json::Map<_, _> = memory
            .iter()
            .map(|(dtype, needed)| {
                let needed = json!({"weights": needed.weights, "workspace": needed.workspace,
                                    "total": needed.total()});
                ((*dtype).to_owned(), needed)
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
    for (dtype, needed) in memory {
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
