//! What the tests of whole runs share.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};

use image::RgbImage;
use sd_inference::{GenerationRequest, LoadOptions, ModelSource, Pipeline};
use serde_json::Value;

/// The largest difference that a pixel may have, of 255.
pub const TOLERANCE: u8 = 2;
pub const FAMILIES: [&str; 3] = ["sd15", "sd21", "sdxl"];

pub fn fixtures(family: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures")).join(family)
}

pub fn pipeline(family: &str, folder: &str) -> Pipeline {
    let source = ModelSource::folder(fixtures(family).join(folder)).unwrap();
    Pipeline::load(&source, &LoadOptions::default()).unwrap()
}

/// Copies a folder and all that is in it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// The tiny model with a UNet of nine channels.
pub fn inpainting_model(class: &str) -> (tempfile::TempDir, Pipeline) {
    let folder = tempfile::tempdir().unwrap();
    copy(&fixtures("sd15").join("model"), folder.path());
    std::fs::remove_dir_all(folder.path().join("unet")).unwrap();
    copy(&fixtures("sd15").join("unet-inpaint"), &folder.path().join("unet"));
    let index = folder.path().join("model_index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    std::fs::write(index, text.replace("\"StableDiffusionPipeline\"", &format!("\"{class}\""))).unwrap();
    let pipeline =
        Pipeline::load(&ModelSource::folder(folder.path()).unwrap(), &LoadOptions::default()).unwrap();
    (folder, pipeline)
}

/// The runs that a file of the family lists.
pub fn runs(family: &str, file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(fixtures(family).join(file)).unwrap();
    let runs: Value = serde_json::from_str(&text).unwrap();
    runs["runs"].as_array().unwrap().clone()
}

pub fn request(run: &Value) -> GenerationRequest {
    let size = |field: &str| run[field].as_u64().map(|value| value as usize);
    let name = |field: &str| run[field].as_str();
    GenerationRequest {
        negative_prompt: name("negative_prompt").map(str::to_owned),
        width: size("width"),
        height: size("height"),
        steps: size("steps"),
        guidance_scale: run["guidance_scale"].as_f64(),
        seed: run["seed"].as_str().unwrap().parse().unwrap(),
        sampler: name("sampler").map(|sampler| sampler.parse().unwrap()),
        schedule: name("schedule").map(|schedule| schedule.parse().unwrap()),
        timestep_spacing: name("timestep_spacing").map(|spacing| spacing.parse().unwrap()),
        eta: run["eta"].as_f64().filter(|eta| *eta > 0.0),
        num_images: size("num_images").unwrap(),
        clip_skip: size("clip_skip").unwrap_or(0),
        ..GenerationRequest::new(name("prompt").unwrap())
    }
}

pub fn images(pipeline: &Pipeline, request: &GenerationRequest) -> Vec<RgbImage> {
    let mut generation = pipeline.begin(request).unwrap();
    while generation.step().unwrap().is_some() {}
    generation.finish().unwrap().images.into_iter().map(|(image, _)| image).collect()
}

/// Image k of a request is, to the byte, the image that seed + k gives alone.
pub fn each_is_the_image_of_its_own_seed(pipeline: &Pipeline, request: &GenerationRequest) {
    let together = images(pipeline, request);
    assert!(together.len() > 1);
    for (k, image) in together.iter().enumerate() {
        let seed = request.seed.wrapping_add(k as u64);
        let alone = images(pipeline, &GenerationRequest { seed, num_images: 1, ..request.clone() });
        assert!(&alone[0] == image, "image {k} is not that of seed {seed}");
    }
}

pub fn largest_difference(a: &RgbImage, b: &RgbImage) -> u8 {
    assert_eq!(a.dimensions(), b.dimensions());
    a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}
