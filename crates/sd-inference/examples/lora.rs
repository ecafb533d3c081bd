//! Applies a LoRA, changes its scale, removes it, and tells how long each takes.
//!
//! `cargo run --release -p sd-inference --example lora -- [MODEL [LORA.safetensors]]`: the model is a folder, or `sd15`,
//! `sd21` or `sdxl` for a full-size one with random weights. Without a file it makes one up: rank 16 for every attention
//! and feed-forward layer of the UNet. Without arguments it takes the demonstration model.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sd_inference::{AppliedLora, GenerationRequest, LoadOptions, Lora, ModelSource, Pipeline, RandomModel};

const RANK: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let model =
        arguments.next().unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo").into());
    let source = match model.parse::<RandomModel>() {
        Ok(random) => ModelSource::Random(random),
        Err(_) => ModelSource::folder(model)?,
    };
    let start = Instant::now();
    let pipeline = Pipeline::load(&source, &LoadOptions::default())?;
    println!("load the model: {:.2?}", start.elapsed());

    let lora = match arguments.next() {
        Some(file) => Lora::open(file)?,
        None => {
            let file = made_up(&pipeline)?;
            let lora = Lora::open(&file)?;
            std::fs::remove_file(file)?;
            lora
        }
    };
    println!("{} layers", lora.layers());
    let at = |scale| vec![AppliedLora { lora: lora.clone(), scale }];
    for (what, loras) in [
        ("without", vec![]),
        ("apply", at(1.0)),
        ("the same again", at(1.0)),
        ("another scale", at(0.5)),
        ("remove", vec![]),
    ] {
        println!("{what}: {:.2?}", change(&pipeline, loras)?);
    }
    Ok(())
}

/// How long a request waits for its adapters.
fn change(pipeline: &Pipeline, loras: Vec<AppliedLora>) -> Result<Duration, sd_inference::Error> {
    // Small: the noise is not what is measured.
    let side = Some(pipeline.info().size_multiple * 8);
    let request = GenerationRequest {
        width: side,
        height: side,
        steps: Some(1),
        guidance_scale: Some(1.0),
        loras,
        ..GenerationRequest::new("a red circle")
    };
    let start = Instant::now();
    let generation = pipeline.begin(&request)?;
    Ok(start.elapsed().saturating_sub(generation.timings().text_encode))
}

/// A file in PEFT's naming, with zeros: how long it takes does not depend on the values.
fn made_up(pipeline: &Pipeline) -> Result<PathBuf, Box<dyn Error>> {
    let mut shapes = Vec::new();
    for (layer, shape) in pipeline.adaptable_layers() {
        if layer.starts_with("unet.") && layer.contains("transformer_blocks") {
            shapes.push((format!("{layer}.lora_A.weight"), vec![RANK, shape[1]]));
            shapes.push((format!("{layer}.lora_B.weight"), vec![shape[0], RANK]));
        }
    }
    let bytes = |shape: &[usize]| 4 * shape.iter().product::<usize>();
    let zeros = vec![0u8; shapes.iter().map(|(_, shape)| bytes(shape)).max().unwrap_or(0)];
    let tensors = shapes.iter().map(|(name, shape)| {
        let view = safetensors::tensor::TensorView::new(
            safetensors::Dtype::F32,
            shape.clone(),
            &zeros[..bytes(shape)],
        );
        view.map(|view| (name.as_str(), view))
    });
    let tensors = tensors.collect::<Result<Vec<_>, _>>()?;
    let path = std::env::temp_dir().join(format!("sd-inference-lora-{}.safetensors", std::process::id()));
    std::fs::write(&path, safetensors::serialize(tensors, None)?)?;
    Ok(path)
}
