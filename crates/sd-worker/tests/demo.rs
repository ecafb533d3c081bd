//! Draws the prompts of `models/demo/eval.json`, whose combinations of shape, colour and ground training never saw,
//! and looks at the pixels. The thresholds are what the product promises; the model's card tells what it reaches.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::Path;

use sd_inference::{DType, GenerationRequest, LoadOptions, ModelSource, Pipeline};

#[path = "support/demo_checker.rs"]
mod demo_checker;

use demo_checker::{References, verdict};

const LEAST_COLOUR_AND_GROUND: f64 = 0.97;
const LEAST_SHAPE: f64 = 0.95;
/// Rounding may cost a picture or two.
const LEAST_SHAPE_IN_BF16: f64 = 0.93;
const LEAST_POSITION: f64 = 0.97;

#[test]
fn unseen_combinations_come_out_as_the_prompt_says() {
    check(DType::F32);
}

/// `SD_KERNELS=amx-emulated` shows the same of a processor with AMX.
#[test]
fn unseen_combinations_come_out_in_bf16_too() {
    check(DType::BF16);
}

fn check(dtype: DType) {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo"));
    let references: References =
        serde_json::from_str(&std::fs::read_to_string(folder.join("eval.json")).unwrap()).unwrap();
    let total = references.prompts.len();
    assert!(total >= 100, "{total} prompts");
    let options = LoadOptions { dtype, ..LoadOptions::default() };
    let pipeline = Pipeline::load(&ModelSource::folder(folder).unwrap(), &options).unwrap();

    let (mut colour_and_ground, mut shapes, mut positions) = (0, 0, Vec::new());
    for wanted in &references.prompts {
        let request =
            GenerationRequest { seed: wanted.seed, ..GenerationRequest::new(wanted.prompt.as_str()) };
        let mut generation = pipeline.begin(&request).unwrap();
        while generation.step().unwrap().is_some() {}
        let (image, _) = generation.finish().unwrap().images.remove(0);
        let seen =
            verdict(image.as_raw(), image.width() as usize, image.height() as usize, wanted, &references);
        colour_and_ground += usize::from(seen.colour && seen.ground);
        shapes += usize::from(seen.shape);
        positions.extend(seen.position);
        if !(seen.colour && seen.ground && seen.shape) {
            println!("{}: colour {} ground {} shape {}", wanted.prompt, seen.colour, seen.ground, seen.shape);
        }
    }
    let share = |count: usize| count as f64 / total as f64;
    let placed = positions.iter().filter(|right| **right).count() as f64 / positions.len() as f64;
    println!(
        "{dtype:?}: colour and ground {:.1} %, shape {:.1} %, position {:.1} % of {}",
        100.0 * share(colour_and_ground),
        100.0 * share(shapes),
        100.0 * placed,
        positions.len()
    );
    assert!(
        share(colour_and_ground) >= LEAST_COLOUR_AND_GROUND,
        "colour and ground: {colour_and_ground} of {total}"
    );
    let least_shape = if dtype == DType::F32 { LEAST_SHAPE } else { LEAST_SHAPE_IN_BF16 };
    assert!(share(shapes) >= least_shape, "shape: {shapes} of {total}");
    assert!(placed >= LEAST_POSITION, "position: {placed} of {}", positions.len());
}
