//! The samplers and schedules that `schedulers.rs` does not cover, against `fixtures/solvers.json`, which says which
//! diffusers and k-diffusion made it.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which clippy does not know for tests")]
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;

use candle_core::{Device, Tensor};
use sd_inference::rng::NoiseKind;
use sd_inference::schedulers::{Sampler, Schedule, Scheduler, SchedulerConfig, SchedulerOptions};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Of tables, relative; of samples, relative to values above 1.
const TABLES: f64 = 1e-5;
const TRAJECTORIES: f32 = 2e-5;

#[derive(Deserialize)]
struct Configs {
    configs: BTreeMap<String, Map<String, Value>>,
}

#[derive(Deserialize)]
struct Fixture {
    noise_seed: u64,
    initial: Initial,
    tables: Vec<Table>,
    trajectories: Vec<Trajectory>,
}

#[derive(Deserialize)]
struct Initial {
    shape: Vec<usize>,
    values: Vec<f32>,
}

#[derive(Deserialize)]
struct Case {
    sampler: String,
    config: String,
    schedule: String,
    spacing: Option<String>,
    steps: usize,
    kwargs: Map<String, Value>,
}

#[derive(Deserialize)]
struct Table {
    #[serde(flatten)]
    case: Case,
    count: usize,
    every: usize,
    init_noise_sigma: f64,
    timesteps: Vec<f64>,
    levels: Vec<f64>,
}

#[derive(Deserialize)]
struct Trajectory {
    #[serde(flatten)]
    case: Case,
    prediction: String,
    eta: Option<f64>,
    begin: Option<usize>,
    #[serde(rename = "final")]
    end: Vec<f32>,
}

fn read<T: DeserializeOwned>(file: &str) -> T {
    let path = format!("{}/../../fixtures/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{path}: {error}; `cargo xtask fixtures` makes it"));
    serde_json::from_str(&text).unwrap()
}

impl Case {
    fn scheduler(&self, configs: &Configs, eta: Option<f64>) -> Box<dyn Scheduler> {
        let mut config = configs.configs[&self.config].clone();
        config.extend(self.kwargs.clone());
        let mut config = SchedulerConfig::from_json(&Value::Object(config).to_string()).unwrap();
        if self.config == "sdxl" {
            config = config.for_sdxl();
        }
        let options = SchedulerOptions {
            sampler: Some(self.sampler.parse().unwrap()),
            schedule: Some(self.schedule.parse().unwrap()),
            spacing: self.spacing.as_ref().map(|spacing| spacing.parse().unwrap()),
            eta,
            ..SchedulerOptions::new(self.steps)
        };
        config.start(&options).unwrap()
    }

    fn name(&self) -> String {
        let Self { sampler, config, schedule, spacing, steps, kwargs } = self;
        format!("{config} {sampler} {schedule} {spacing:?} {steps} steps {}", Value::Object(kwargs.clone()))
    }
}

fn assert_close(own: f64, wanted: f64, least: f64, what: &str) {
    let limit = TABLES * wanted.abs().max(least);
    assert!((own - wanted).abs() <= limit, "{what}: {own}, not {wanted}");
}

#[test]
fn tables_are_the_references() {
    let (configs, fixture): (Configs, Fixture) = (read("schedulers.json"), read("solvers.json"));
    assert!(fixture.tables.len() > 200);
    for table in &fixture.tables {
        let what = table.case.name();
        let scheduler = table.case.scheduler(&configs, None);
        assert_eq!(scheduler.steps(), table.count, "{what}");
        assert_close(scheduler.init_noise_sigma(), table.init_noise_sigma, 1e-3, &format!("{what}: initial"));
        let kept = |values: Vec<f64>| values.into_iter().step_by(table.every).collect::<Vec<_>>();
        let levels = scheduler.sigmas().iter().map(|sigma| f64::from(*sigma)).collect();
        // A part of the first timestep is what rounding leaves of a logarithm.
        for (name, own, wanted, least) in [
            ("timestep", kept(scheduler.timesteps().to_vec()), &table.timesteps, 1.0),
            ("level", kept(levels), &table.levels, 1e-3),
        ] {
            assert_eq!(own.len(), wanted.len(), "{what}: {name}");
            for (i, (own, wanted)) in own.iter().zip(wanted).enumerate() {
                assert_close(*own, *wanted, least, &format!("{what}: {name} {i}"));
            }
        }
    }
}

/// The closed-form UNet of the fixtures.
fn model(input: &Tensor, timestep: f64) -> candle_core::Result<Tensor> {
    let shift = f64::from(timestep as f32 / 1000.0);
    input.affine(0.5, shift)?.tanh()? * 0.3
}

#[test]
fn trajectories_are_the_references() -> Result<(), Box<dyn std::error::Error>> {
    let (configs, fixture): (Configs, Fixture) = (read("schedulers.json"), read("solvers.json"));
    let initial =
        Tensor::from_vec(fixture.initial.values.clone(), fixture.initial.shape.clone(), &Device::Cpu)?;
    let mut worst: BTreeMap<&str, f32> = BTreeMap::new();
    assert!(fixture.trajectories.len() > 200);
    for Trajectory { case, prediction, eta, begin, end } in &fixture.trajectories {
        let what = format!("{} {prediction}, eta {eta:?}, from {begin:?}", case.name());
        let mut scheduler = case.scheduler(&configs, *eta);
        let mut noise = NoiseKind::TorchCpu.source(fixture.noise_seed);
        let mut sample = match begin {
            None => (&initial * scheduler.init_noise_sigma())?,
            Some(begin) => {
                let fresh = noise.randn(initial.dims(), &Device::Cpu)?;
                scheduler.add_noise(&initial, &fresh, *begin)?
            }
        };
        for step in begin.unwrap_or(0)..scheduler.steps() {
            let input = scheduler.scale_model_input(&sample, step)?;
            let output = model(&input, scheduler.timesteps()[step])?;
            sample = scheduler.step(&output, step, &sample, &mut noise)?;
        }
        let own = sample.flatten_all()?.to_vec1::<f32>()?;
        assert_eq!(own.len(), end.len());
        for (i, (own, wanted)) in own.iter().zip(end).enumerate() {
            let difference = (own - wanted).abs() / wanted.abs().max(1.0);
            let most = worst.entry(case.sampler.as_str()).or_default();
            *most = most.max(difference);
            assert!(difference <= TRAJECTORIES, "{what}, value {i}: {own}, not {wanted}");
        }
    }
    for (sampler, difference) in worst {
        println!("{sampler}: largest difference {difference:e}");
    }
    Ok(())
}

/// Together with `schedulers.json`, which holds the first five.
#[test]
fn the_fixture_covers_every_other_sampler_and_schedule() {
    let fixture: Fixture = read("solvers.json");
    for sampler in Sampler::ALL.iter().skip(5) {
        let rows = fixture.trajectories.iter().filter(|row| row.case.sampler == sampler.name());
        assert!(rows.count() >= 8, "{sampler}");
    }
    for schedule in Schedule::ALL.iter().skip(1) {
        assert!(fixture.tables.iter().any(|row| row.case.schedule == schedule.name()), "{schedule}");
    }
}
