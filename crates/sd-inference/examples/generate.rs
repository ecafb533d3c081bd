//! Embeds the pipeline in a program of its own: load, begin, step, finish.
//!
//! `cargo run --release -p sd-inference --example generate -- [MODEL_FOLDER] [PROMPT]`; without arguments it draws with
//! the demonstration model and writes `example.png` into the current folder.

#![allow(clippy::print_stdout)]

use std::error::Error;

use sd_inference::{GenerationRequest, LoadOptions, ModelSource, Pipeline};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder =
        arguments.next().unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo").into());
    let prompt = arguments.next().unwrap_or_else(|| "a red circle on green grass".into());

    // Weights are read once; the pipeline is shared freely between threads.
    let pipeline = Pipeline::load(&ModelSource::folder(folder)?, &LoadOptions::default())?;
    println!("{} on {}", pipeline.info().family, pipeline.info().device);

    // Everything that belongs to one picture lives in the generation. Cancelling is to stop stepping.
    let request = GenerationRequest { seed: 7, steps: Some(12), ..GenerationRequest::new(prompt) };
    let mut generation = pipeline.begin(&request)?;
    while let Some(step) = generation.step()? {
        println!("step {} of {} in {:.0?}", step.index, step.total, step.elapsed);
    }

    let finished = generation.finish()?;
    for (image, seed) in finished.images {
        image.save("example.png")?;
        println!("example.png: {}x{}, seed {seed}", image.width(), image.height());
    }
    Ok(())
}
