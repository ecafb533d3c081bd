//! `sd-worker jobs fetch`: the pictures of a finished job, as files.

use std::path::PathBuf;

use operations_contract::{ImageFormat, JobState, JobView};
use serde_json::{Value, json};

use super::args::{FetchArgs, SavingArgs};
use super::client::Client;
use super::job_path;
use crate::exit::{Failure, say};
use crate::output::OutputFiles;
use crate::story::CANCELLED;

/// A picture to save.
pub(crate) struct Saved<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) seed: u64,
    pub(crate) size: (u32, u32),
}

pub(crate) fn run(client: &Client, args: &FetchArgs) -> Result<(), Failure> {
    let path = job_path(&args.job);
    let view: JobView = client.get(&path)?;
    let reason = view.error.map_or_else(String::new, |error| format!(": {}", error.message));
    match view.state {
        JobState::Completed => {}
        JobState::Cancelled => return Err(Failure::failed(CANCELLED)),
        JobState::Failed => return Err(Failure::failed(format!("the job failed{reason}"))),
        JobState::Queued | JobState::Running => return Err(Failure::failed("the job is not over yet")),
    }
    let Some(format) = view.images.first().map(|image| image.format) else {
        return Err(Failure::failed("the job has no pictures"));
    };
    let output = reserve(&args.saving, format)?;
    let bytes: Result<Vec<Vec<u8>>, Failure> = view
        .images
        .iter()
        .map(|image| Ok(client.bytes(&format!("{path}/images/{}", image.index))?))
        .collect();
    let bytes = bytes?;
    let images: Vec<Saved<'_>> = view
        .images
        .iter()
        .zip(&bytes)
        .map(|(image, bytes)| Saved { bytes, seed: image.seed, size: (image.width, image.height) })
        .collect();
    save(&args.job, output, &images, args.saving.json, Value::Null)
}

/// The place where pictures of this format go.
pub(crate) fn reserve(saving: &SavingArgs, format: ImageFormat) -> Result<OutputFiles, Failure> {
    let ending = match format {
        ImageFormat::Jpeg => "jpg".to_owned(),
        format => format.to_string(),
    };
    let path = saving.output.clone().unwrap_or_else(|| PathBuf::from(format!("sd-worker.{ending}")));
    let output = OutputFiles::reserve(&path)?;
    match output.format() == format {
        true => Ok(output),
        false => Err(Failure::refused(format!("output {}: the pictures are {format}", path.display()))),
    }
}

/// Writes the files and tells which.
pub(crate) fn save(
    job: &str,
    output: OutputFiles,
    images: &[Saved<'_>],
    as_json: bool,
    timings: Value,
) -> Result<(), Failure> {
    let paths = output.write(&images.iter().map(|image| image.bytes).collect::<Vec<_>>())?;
    let written = paths.iter().zip(images);
    if as_json {
        let files: Vec<Value> = written
            .map(|(path, image)| {
                json!({"file": path, "seed": image.seed, "width": image.size.0, "height": image.size.1})
            })
            .collect();
        return say(json!({"job_id": job, "images": files, "timings": timings}));
    }
    for (path, Saved { seed, size: (width, height), .. }) in written {
        say(format!("{}: {width}x{height}, seed {seed}", path.display()))?;
    }
    Ok(())
}
