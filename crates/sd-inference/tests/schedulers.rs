//! Tables and trajectories against `fixtures/schedulers.json`, which says which diffusers made it.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which clippy does not know for tests")]

use std::collections::BTreeMap;
use std::fs;

use candle_core::{Device, Tensor};
use sd_inference::rng::NoiseKind;
use sd_inference::schedulers::{Sampler, Schedule, Scheduler, SchedulerConfig, SchedulerOptions};
use serde::Deserialize;
use serde_json::{Map, Value};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/schedulers.json");

#[derive(Deserialize)]
struct Fixture {
    configs: BTreeMap<String, Map<String, Value>>,
    alphas: BTreeMap<String, Alphas>,
    tables: Vec<Table>,
    initial: Initial,
    trajectories: Vec<Trajectory>,
}

#[derive(Deserialize)]
struct Alphas {
    config: String,
    kwargs: Map<String, Value>,
    alphas_cumprod: Vec<f32>,
}

/// Which scheduler: a model's configuration, and what a user changed in it.
#[derive(Deserialize)]
struct Case {
    config: String,
    sampler: String,
    schedule: String,
    timestep_spacing: String,
    steps: usize,
    kwargs: Map<String, Value>,
}

#[derive(Deserialize)]
struct Table {
    #[serde(flatten)]
    case: Case,
    timesteps: Vec<f64>,
    sigmas: Option<Vec<f32>>,
    init_noise_sigma: f64,
}

#[derive(Deserialize)]
struct Initial {
    shape: Vec<usize>,
    values: Vec<f32>,
}

#[derive(Deserialize)]
struct Trajectory {
    #[serde(flatten)]
    case: Case,
    prediction_type: String,
    eta: Option<f64>,
    noise_seed: Option<u64>,
    #[serde(rename = "final")]
    end: Vec<f32>,
    per_step: Option<Vec<Vec<f32>>>,
}

fn fixture() -> Fixture {
    let text = fs::read_to_string(FIXTURE)
        .unwrap_or_else(|error| panic!("{FIXTURE}: {error}; `cargo xtask fixtures` makes it"));
    serde_json::from_str(&text).unwrap()
}

impl Fixture {
    /// The model's configuration with `kwargs` in it.
    fn config(&self, name: &str, kwargs: &Map<String, Value>) -> SchedulerConfig {
        let mut config = self.configs[name].clone();
        config.extend(kwargs.clone());
        SchedulerConfig::from_json(&Value::Object(config).to_string()).unwrap()
    }

    /// The scheduler as a configuration file would choose it.
    fn as_file_says(&self, case: &Case, eta: Option<f64>) -> Box<dyn Scheduler> {
        let options = SchedulerOptions {
            sampler: Some(case.sampler.parse().unwrap()),
            eta,
            ..SchedulerOptions::new(case.steps)
        };
        self.config(&case.config, &case.kwargs).start(&options).unwrap()
    }

    /// The same one as a request would choose it.
    fn as_request_says(&self, case: &Case) -> Box<dyn Scheduler> {
        let mut kwargs = case.kwargs.clone();
        for key in ["use_karras_sigmas", "use_exponential_sigmas", "timestep_spacing"] {
            kwargs.remove(key);
        }
        let spacing = (case.timestep_spacing != "default").then(|| case.timestep_spacing.parse().unwrap());
        let options = SchedulerOptions {
            sampler: Some(case.sampler.parse().unwrap()),
            schedule: Some(case.schedule.parse().unwrap()),
            spacing,
            ..SchedulerOptions::new(case.steps)
        };
        self.config(&case.config, &kwargs).start(&options).unwrap()
    }
}

impl Case {
    fn name(&self) -> String {
        let Self { config, sampler, schedule, timestep_spacing, steps, kwargs } = self;
        let kwargs = Value::Object(kwargs.clone());
        format!("{config} {sampler} {schedule} {timestep_spacing} {steps} steps {kwargs}")
    }
}

fn assert_close(own: f64, wanted: f64, tolerance: f64, what: &str) {
    let limit = tolerance * wanted.abs().max(1e-3);
    assert!((own - wanted).abs() <= limit, "{what}: {own}, not {wanted}");
}

#[test]
fn alphas_are_the_references() {
    let fixture = fixture();
    for (name, wanted) in &fixture.alphas {
        let own = fixture.config(&wanted.config, &wanted.kwargs).alphas_cumprod().unwrap();
        assert_eq!(own.len(), wanted.alphas_cumprod.len());
        for (t, (own, wanted)) in own.iter().zip(&wanted.alphas_cumprod).enumerate() {
            assert_close(f64::from(*own), f64::from(*wanted), 1e-5, &format!("{name}, timestep {t}"));
        }
    }
}

#[test]
fn tables_are_the_references() {
    let fixture = fixture();
    for table in &fixture.tables {
        for scheduler in [fixture.as_file_says(&table.case, None), fixture.as_request_says(&table.case)] {
            let what = table.case.name();
            assert_eq!(scheduler.steps(), table.timesteps.len(), "{what}");
            for (i, (own, wanted)) in scheduler.timesteps().iter().zip(&table.timesteps).enumerate() {
                assert_close(*own, *wanted, 1e-5, &format!("{what}: timestep {i}"));
            }
            assert_close(
                scheduler.init_noise_sigma(),
                table.init_noise_sigma,
                1e-5,
                &format!("{what}: initial"),
            );
            let Some(sigmas) = &table.sigmas else { continue };
            assert_eq!(scheduler.sigmas().len(), sigmas.len(), "{what}");
            for (i, (own, wanted)) in scheduler.sigmas().iter().zip(sigmas).enumerate() {
                assert_close(f64::from(*own), f64::from(*wanted), 1e-5, &format!("{what}: sigma {i}"));
            }
        }
    }
}

/// The closed-form UNet of the fixtures.
fn model(input: &Tensor, timestep: f64) -> candle_core::Result<Tensor> {
    let shift = f64::from(timestep as f32 / 1000.0);
    input.affine(0.5, shift)?.tanh()? * 0.3
}

fn assert_sample(sample: &Tensor, wanted: &[f32], what: &str) {
    let own = sample.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(own.len(), wanted.len());
    for (i, (own, wanted)) in own.iter().zip(wanted).enumerate() {
        let limit = 1e-5 * wanted.abs().max(1.0);
        assert!((own - wanted).abs() <= limit, "{what}, value {i}: {own}, not {wanted}");
    }
}

#[test]
fn trajectories_are_the_references() -> Result<(), Box<dyn std::error::Error>> {
    let fixture = fixture();
    let initial =
        Tensor::from_vec(fixture.initial.values.clone(), fixture.initial.shape.clone(), &Device::Cpu)?;
    for trajectory in &fixture.trajectories {
        let what = format!("{} {}", trajectory.case.name(), trajectory.prediction_type);
        let mut scheduler = fixture.as_file_says(&trajectory.case, trajectory.eta);
        let mut noise = NoiseKind::TorchCpu.source(trajectory.noise_seed.unwrap_or(0));
        let mut sample = (&initial * scheduler.init_noise_sigma())?;
        for step in 0..scheduler.steps() {
            let input = scheduler.scale_model_input(&sample, step)?;
            let output = model(&input, scheduler.timesteps()[step])?;
            sample = scheduler.step(&output, step, &sample, &mut noise)?;
            if let Some(path) = &trajectory.per_step {
                assert_sample(&sample, &path[step], &format!("{what}, step {step}"));
            }
        }
        assert_sample(&sample, &trajectory.end, &what);
    }
    Ok(())
}

/// Of the others `solvers.rs` tells.
#[test]
fn the_fixture_covers_the_first_samplers_and_schedules() {
    let fixture = fixture();
    let seen = |wanted: &dyn Fn(&Case) -> bool| fixture.tables.iter().any(|table| wanted(&table.case));
    for sampler in &Sampler::ALL[..5] {
        assert!(seen(&|case| case.sampler == sampler.name()), "{sampler}");
    }
    for schedule in &Schedule::ALL[..3] {
        assert!(seen(&|case| case.schedule == schedule.name()), "{schedule}");
    }
}
