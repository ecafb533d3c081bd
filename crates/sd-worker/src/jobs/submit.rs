//! `sd-worker jobs submit`: a job for a worker elsewhere, from the flags of the local commands.

use std::io::Read;
use std::path::Path;

use operations_contract::{
    Common, ImageFormat, ImageGeneration, ImageInpaint, ImageTransform, Operation, Output, Submitted,
};
use serde_json::{Value, json};

use super::args::{RequestArgs, SavingArgs, SubmitArgs, SubmitForm, loading};
use super::client::Client;
use super::fetch::{self, Saved};
use super::watch::{self, Shown};
use crate::args::GenerateArgs;
use crate::exit::{Failure, say};
use crate::output::{OutputFiles, format_of};
use crate::previews::PreviewFile;
use crate::{generate, model};

/// A request and what happens to its pictures.
struct Request {
    body: Value,
    saving: SavingArgs,
    format: ImageFormat,
    previews: Option<PreviewFile>,
}

/// `explicit` names the flags that stand on the command line.
pub(crate) fn run(client: &Client, args: &SubmitArgs, explicit: &[String]) -> Result<(), Failure> {
    let Request { mut body, saving, format, previews } = request(args, explicit)?;
    if previews.is_some() && !args.wait {
        return Err(Failure::refused("--preview: without --wait nobody would write the file"));
    }
    if let Some(fields) = body.as_object_mut() {
        let more = [("priority", json!(args.priority)), ("deadline_ms", json!(args.deadline_ms))];
        fields.extend(
            more.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.into(), value)),
        );
    }
    // A place that cannot be written is found out before the worker has anything to do.
    let output: Option<OutputFiles> = args.wait.then(|| fetch::reserve(&saving, format)).transpose()?;
    let Submitted { job_id, sse_url } = client.post("/v1/jobs", body.to_string().as_bytes())?;
    let Some(output) = output else {
        return match saving.json {
            true => say(json!({"job_id": job_id, "sse_url": sse_url})),
            false => say(job_id),
        };
    };
    if !saving.json {
        eprintln!("note: {job_id}");
    }
    let done = watch::follow(client, job_id.as_str(), Shown { bar: !saving.json, events: false }, previews)?;
    let images: Vec<Saved<'_>> = done
        .images
        .iter()
        .map(|image| Saved {
            bytes: image.image.bytes(),
            seed: image.seed,
            size: (image.width, image.height),
        })
        .collect();
    fetch::save(job_id.as_str(), output, &images, saving.json, json!(done.timings))
}

fn request(args: &SubmitArgs, explicit: &[String]) -> Result<Request, Failure> {
    match &args.form {
        SubmitForm::Generate(args) => {
            from_flags(args, explicit, |common| Ok(Operation::ImageGeneration(ImageGeneration { common })))
        }
        SubmitForm::Transform(args) => from_flags(&args.generate, explicit, |common| {
            let init_image = generate::read("image", &args.image)?;
            Ok(Operation::ImageTransform(ImageTransform { common, init_image, strength: args.strength }))
        }),
        SubmitForm::Inpaint(args) => from_flags(&args.generate, explicit, |common| {
            Ok(Operation::ImageInpaint(ImageInpaint { common, ..generate::inpaint_request(args)? }))
        }),
        SubmitForm::Request(args) => from_file(args),
    }
}

fn from_flags(
    args: &GenerateArgs,
    explicit: &[String],
    operation: impl FnOnce(Common) -> Result<Operation, Failure>,
) -> Result<Request, Failure> {
    refuse_loading(explicit)?;
    model::only_one(&args.model)?;
    let format = format_of(&args.output)?;
    let mut common = generate::common(args)?;
    common.model = explicit.iter().any(|id| id == "model").then(|| args.model.name().to_owned());
    common.output = Output { format, quality: args.quality, metadata: !args.no_metadata };
    common.loras =
        args.lora.iter().map(|lora| lora.named().map_err(Failure::refused)).collect::<Result<_, _>>()?;
    let operation = operation(common)?;
    operation.validate().map_err(Failure::refused)?;
    let body = serde_json::to_value(&operation).map_err(Failure::failed)?;
    let saving = SavingArgs { output: Some(args.output.clone()), json: args.json };
    Ok(Request { body, saving, format, previews: args.previews.file()? })
}

/// What concerns loading is the worker's own: it would be ignored.
fn refuse_loading(explicit: &[String]) -> Result<(), Failure> {
    let given: Vec<String> = loading()
        .iter()
        .filter(|arg| explicit.iter().any(|id| arg.get_id() == id.as_str()))
        .filter_map(|arg| arg.get_long())
        .map(|long| format!("--{long}"))
        .collect();
    match given.is_empty() {
        true => Ok(()),
        false => {
            let given = given.join(", ");
            Err(Failure::refused(format!(
                "{given}: says how a model is loaded, which the worker's own flags do"
            )))
        }
    }
}

/// A request in JSON is sent as it is: what is wrong with it the worker says.
fn from_file(args: &RequestArgs) -> Result<Request, Failure> {
    let refused = |reason: String| Failure::refused(format!("file {}: {reason}", args.file.display()));
    let text = match args.file == Path::new("-") {
        true => std::io::read_to_string(std::io::stdin().take(u64::from(u32::MAX))),
        false => std::fs::read_to_string(&args.file),
    };
    let body: Value = text.map_err(|error| refused(error.to_string())).and_then(|text| {
        serde_json::from_str(&text).map_err(|error| refused(format!("is no JSON: {error}")))
    })?;
    if !body.is_object() {
        return Err(refused("must be a JSON object".into()));
    }
    let named = body.pointer("/output/format").cloned();
    let format = named.and_then(|format| serde_json::from_value(format).ok()).unwrap_or(ImageFormat::Png);
    let saving = SavingArgs { output: args.saving.output.clone(), json: args.saving.json };
    Ok(Request { body, saving, format, previews: None })
}
