//! `sd-worker upscale`: a picture made larger by a network of its own, by one job like every other.

use std::time::Instant;

use operations_contract::{ImageUpscale, Operation, Output};
use sd_engine::{JobRegistry, UpscaleGenerator};
use sd_inference::{DType, UpscaleNetwork};
use serde_json::json;

use crate::args::UpscaleArgs;
use crate::exit::{Failure, say};
use crate::follow;
use crate::generate::read;
use crate::model;
use crate::output::OutputFiles;
use crate::story::Bar;
use crate::worker::Worker;

pub(crate) fn run(args: &UpscaleArgs) -> Result<(), Failure> {
    let start = Instant::now();
    let mut request = ImageUpscale {
        image: read("file", &args.file)?,
        scale: args.scale,
        tile: args.tile.into(),
        margin: args.margin.into(),
        tiling: args.tiling.map(Into::into).unwrap_or_default(),
        ..ImageUpscale::default()
    };
    // What the contract alone can refuse is refused before the network is loaded.
    Operation::ImageUpscale(request.clone()).validate().map_err(Failure::refused)?;
    let output = OutputFiles::reserve(&args.output)?;
    request.output = Output { format: output.format(), quality: args.quality, metadata: !args.no_metadata };

    let network = UpscaleNetwork::open(&args.upscaler, &model::device(args.device)?, DType::F32)?;
    let scale = network.scale();
    let worker = Worker::new(1, JobRegistry::in_memory().map_err(Failure::failed)?);
    let (router, models) = (worker.router.clone(), worker.models.clone());
    let engine = worker.start_with(UpscaleGenerator::new(network, args.memory_limit.unwrap_or_default()))?;
    let operation = Operation::ImageUpscale(request);
    let done = follow::to_the_end(&router, &models, engine, operation, Bar::new("tile", args.json), None)?;

    let files: Vec<&[u8]> = done.images.iter().map(|image| image.image.bytes()).collect();
    let elapsed = start.elapsed();
    for (path, image) in output.write(&files)?.iter().zip(&done.images) {
        let (width, height) = (image.width, image.height);
        match args.json {
            true => say(json!({"file": path, "width": width, "height": height, "format": image.format,
                               "scale": scale, "elapsed_ms": elapsed.as_millis() as u64}))?,
            false => say(format!("{}: {width}x{height}, {:.2} s", path.display(), elapsed.as_secs_f64()))?,
        }
    }
    Ok(())
}
