//! Samplers that take their noise from Brownian trees, against diffusers and k-diffusion with torchsde's
//! (`fixtures/brownian/brownian.json`, made by `tools/reference`).

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use candle_core::{Device, Tensor};
use sd_inference::GenerationRequest;
use sd_inference::rng::{BatchNoise, NoiseKind};
use sd_inference::schedulers::{SchedulerConfig, SchedulerOptions};
use serde_json::{Value, json};

use support::{
    TOLERANCE, each_is_the_image_of_its_own_seed, fixtures, images, largest_difference, pipeline, request,
};

/// Relative to values above 1.
const TRAJECTORIES: f32 = 2e-5;

fn fixture() -> Value {
    serde_json::from_slice(&std::fs::read(fixtures("brownian").join("brownian.json")).unwrap()).unwrap()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

/// The closed-form UNet of the fixtures.
fn model(input: &Tensor, timestep: f64) -> Tensor {
    let shift = f64::from(timestep as f32 / 1000.0);
    (input.affine(0.5, shift).unwrap().tanh().unwrap() * 0.3).unwrap()
}

#[test]
fn trajectories_are_the_references() {
    let fixture = fixture();
    let shape: Vec<usize> = fixture["initial"]["shape"]
        .as_array()
        .unwrap()
        .iter()
        .map(|side| side.as_u64().unwrap() as usize)
        .collect();
    let initial = Tensor::from_vec(floats(&fixture["initial"]["values"]), &shape[..], &Device::Cpu).unwrap();
    let rows = fixture["trajectories"].as_array().unwrap();
    assert!(rows.len() > 10);
    for row in rows {
        let config = json!({
            "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "prediction_type": row["prediction"], "timestep_spacing": "linspace", "steps_offset": 1,
        });
        let options = SchedulerOptions {
            sampler: Some(row["sampler"].as_str().unwrap().parse().unwrap()),
            schedule: Some(row["schedule"].as_str().unwrap().parse().unwrap()),
            eta: row["eta"].as_f64(),
            ..SchedulerOptions::new(row["steps"].as_u64().unwrap() as usize)
        };
        let mut scheduler = SchedulerConfig::from_json(&config.to_string()).unwrap().start(&options).unwrap();
        let mut noise = BatchNoise::new(NoiseKind::TorchCpu, fixture["seed"].as_u64().unwrap(), shape[0]);
        let mut sample = (&initial * scheduler.init_noise_sigma()).unwrap();
        for step in 0..scheduler.steps() {
            let input = scheduler.scale_model_input(&sample, step).unwrap();
            let output = model(&input, scheduler.timesteps()[step]);
            sample = scheduler.step(&output, step, &sample, &mut noise).unwrap();
        }
        let own = sample.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let wanted = floats(&row["final"]);
        let difference = |(own, wanted): (&f32, &f32)| (own - wanted).abs() / wanted.abs().max(1.0);
        let worst = own.iter().zip(&wanted).map(difference).fold(0.0, f32::max);
        println!("{} {} {}: largest difference {worst:e}", row["sampler"], row["schedule"], row["steps"]);
        assert!(own.len() == wanted.len() && worst <= TRAJECTORIES, "{worst:e}: {row}");
    }
}

#[test]
fn the_same_seed_gives_the_reference_picture() {
    let pipeline = pipeline("sd15", "model");
    for run in fixture()["runs"].as_array().unwrap() {
        let files = run["files"].as_array().unwrap();
        let found = images(&pipeline, &request(run));
        assert_eq!(found.len(), files.len());
        for (file, image) in files.iter().zip(&found) {
            let expected = image::open(fixtures("brownian").join(file.as_str().unwrap())).unwrap().to_rgb8();
            let difference = largest_difference(&expected, image);
            println!("{file}: largest difference {difference} of 255");
            assert!(difference <= TOLERANCE, "{file}: differs by {difference} of 255");
        }
    }
}

#[test]
fn an_image_of_several_is_the_image_of_its_own_seed() {
    let pipeline = pipeline("sd15", "model");
    for sampler in ["dpmpp_sde", "dpmpp_3m_sde"] {
        let request = GenerationRequest {
            num_images: 2,
            steps: Some(3),
            seed: u64::MAX,
            sampler: Some(sampler.parse().unwrap()),
            ..GenerationRequest::new("a star")
        };
        each_is_the_image_of_its_own_seed(&pipeline, &request);
    }
}
