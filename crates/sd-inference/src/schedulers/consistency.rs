//! Samplers of models that were distilled to jump to the clean sample: LCM and TCD.

use candle_core::Tensor;

use super::alphas::{Visits, factors, signal};
use super::plan::Plan;
use super::prediction::{Clip, clean_sample, epsilon, scaled};
use super::tables::value_at;
use super::{Position, PredictionType, Result, Sampler, Schedule, Scheduler, SchedulerConfig};
use crate::rng::NoiseSource;

/// Steps of the solver that the model was distilled from, where the configuration gives none.
const ORIGINAL_STEPS: usize = 50;
/// The boundary condition's `sigma_data`.
const SIGMA_DATA: f32 = 0.5;

/// Evenly chosen among the timesteps of the distillation, from the highest down. More steps than that has are taken from
/// a finer row, where the reference refuses them.
fn visits(config: &SchedulerConfig, plan: &Plan) -> Visits {
    if plan.schedule != Schedule::Normal {
        return Visits::of_schedule(plan);
    }
    let original = config.original_inference_steps.unwrap_or(ORIGINAL_STEPS).clamp(1, plan.train());
    let count = original.max(plan.steps);
    let stride = plan.train() / count;
    let share = |i: usize| (i as f64 * (count as f64 / plan.steps as f64)) as usize;
    let timestep = |i: usize| ((count - share(i)) * stride - 1) as f64;
    Visits::at(plan, (0..plan.steps).map(timestep).collect())
}

/// diffusers' `LCMScheduler` (Luo et al. 2023): to the clean sample and back up to the next level with fresh noise.
pub(super) struct Lcm {
    visits: Visits,
    sigmas: Vec<f32>,
    prediction: PredictionType,
    clip: Clip,
    timestep_scaling: f32,
    position: Position,
}

impl Lcm {
    pub(super) fn new(config: &SchedulerConfig, plan: &Plan) -> Self {
        let visits = visits(config, plan);
        Self {
            sigmas: visits.sigmas(1.0),
            prediction: plan.prediction,
            clip: Clip::new(config, false),
            timestep_scaling: config.timestep_scaling.unwrap_or(10.0) as f32,
            position: Position::new(plan.steps),
            visits,
        }
    }
}

impl Scheduler for Lcm {
    fn sampler(&self) -> Sampler {
        Sampler::Lcm
    }

    fn prediction(&self) -> PredictionType {
        self.prediction
    }

    fn timesteps(&self) -> &[f64] {
        &self.visits.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn scale_model_input(&self, sample: &Tensor, step: usize) -> Result<Tensor> {
        self.position.check(step)?;
        Ok(sample.clone())
    }

    /// Noise is drawn at every step but the last.
    fn step(
        &mut self,
        model_output: &Tensor,
        step: usize,
        sample: &Tensor,
        noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        self.position.check_turn(step)?;
        let clean = clean_sample(self.prediction, model_output, sample, factors(self.visits.alphas[step]))?;
        let clean = self.clip.apply(clean)?;
        let time = self.visits.timesteps[step] as f32 * self.timestep_scaling;
        let square = time * time + SIGMA_DATA * SIGMA_DATA;
        let (of_sample, of_clean) = (SIGMA_DATA * SIGMA_DATA / square, time / square.sqrt());
        let denoised = (scaled(&clean, of_clean)? + scaled(sample, of_sample)?)?;
        let next = match self.visits.alphas.get(step + 1) {
            Some(alpha) => {
                let (signal, spread) = factors(*alpha);
                let fresh = noise.randn(sample.dims(), sample.device())?;
                (scaled(&denoised, signal)? + scaled(&fresh, spread)?)?
            }
            None => denoised,
        };
        self.position.advance(step);
        Ok(next)
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, step: usize) -> Result<Tensor> {
        self.position.check(step)?;
        self.visits.add_noise(original, noise, step)
    }
}

/// diffusers' `TCDScheduler` (Zheng et al. 2024): below the next level, as far as eta (the paper's gamma) says, and back
/// up to it with fresh noise.
pub(super) struct Tcd {
    visits: Visits,
    sigmas: Vec<f32>,
    /// The share of signal after each step, and below it, before noise is added.
    after: Vec<(f32, f32)>,
    prediction: PredictionType,
    eta: f32,
    position: Position,
}

impl Tcd {
    pub(super) fn new(config: &SchedulerConfig, plan: &Plan) -> Self {
        let visits = visits(config, plan);
        let eta = plan.eta as f32;
        let lower = (1.0 - plan.eta) as f32;
        let below = |timestep: f64| match plan.schedule {
            Schedule::Normal => signal(plan, (lower * timestep as f32).floor() as usize),
            _ => value_at(f64::from(lower) * timestep, &plan.alphas_cumprod) as f32,
        };
        let next = visits.timesteps.iter().zip(&visits.alphas).skip(1);
        let mut after: Vec<(f32, f32)> = next.map(|(t, alpha)| (*alpha, below(*t).max(*alpha))).collect();
        after.push((plan.alphas_cumprod[0], plan.alphas_cumprod[0]));
        Self {
            sigmas: visits.sigmas(plan.alphas_cumprod[0]),
            prediction: plan.prediction,
            eta,
            position: Position::new(plan.steps),
            visits,
            after,
        }
    }
}

impl Scheduler for Tcd {
    fn sampler(&self) -> Sampler {
        Sampler::Tcd
    }

    fn prediction(&self) -> PredictionType {
        self.prediction
    }

    fn timesteps(&self) -> &[f64] {
        &self.visits.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn scale_model_input(&self, sample: &Tensor, step: usize) -> Result<Tensor> {
        self.position.check(step)?;
        Ok(sample.clone())
    }

    /// Noise is drawn at every step but the last if eta is above 0, and else never.
    fn step(
        &mut self,
        model_output: &Tensor,
        step: usize,
        sample: &Tensor,
        noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        self.position.check_turn(step)?;
        let level = factors(self.visits.alphas[step]);
        let clean = clean_sample(self.prediction, model_output, sample, level)?;
        let epsilon = epsilon(self.prediction, model_output, sample, level)?;
        let (after, below) = self.after[step];
        let (signal, spread) = factors(below);
        let mut next = (scaled(&clean, signal)? + scaled(&epsilon, spread)?)?;
        if self.eta > 0.0 && step + 1 < self.visits.timesteps.len() {
            let (kept, added) = factors(after / below);
            let fresh = noise.randn(sample.dims(), sample.device())?;
            next = (scaled(&next, kept)? + scaled(&fresh, added)?)?;
        }
        self.position.advance(step);
        Ok(next)
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, step: usize) -> Result<Tensor> {
        self.position.check(step)?;
        self.visits.add_noise(original, noise, step)
    }
}
