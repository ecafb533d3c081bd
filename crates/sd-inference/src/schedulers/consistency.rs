//! Samplers of models that were distilled to jump to the clean sample: LCM and TCD.

use candle_core::Tensor;

use super::alphas::{Visits, factors, signal};
use super::plan::Plan;
use super::prediction::{Clip, clean_sample, epsilon, scaled};
use super::space::{PreservingSpace, Space};
use super::tables::value_at;
use super::{Result, Sampler, Schedule, Scheduler, SchedulerConfig};
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
    space: PreservingSpace,
    /// The share of signal at each visit.
    alphas: Vec<f32>,
    clip: Clip,
    timestep_scaling: f32,
}

impl Lcm {
    pub(super) fn new(config: &SchedulerConfig, plan: &Plan) -> Self {
        let visits = visits(config, plan);
        Self {
            space: PreservingSpace::of_visits(&visits, 1.0, plan.prediction),
            clip: Clip::new(config, false),
            timestep_scaling: config.timestep_scaling.unwrap_or(10.0) as f32,
            alphas: visits.alphas,
        }
    }
}

impl Scheduler for Lcm {
    fn sampler(&self) -> Sampler {
        Sampler::Lcm
    }

    fn space(&self) -> &dyn Space {
        &self.space
    }

    /// Noise is drawn at every step but the last.
    fn step(
        &mut self,
        model_output: &Tensor,
        step: usize,
        sample: &Tensor,
        noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        self.space.position.check_turn(step)?;
        let clean = clean_sample(self.space.prediction, model_output, sample, factors(self.alphas[step]))?;
        let clean = self.clip.apply(clean)?;
        let time = self.space.levels.timesteps[step] as f32 * self.timestep_scaling;
        let square = time * time + SIGMA_DATA * SIGMA_DATA;
        let (of_sample, of_clean) = (SIGMA_DATA * SIGMA_DATA / square, time / square.sqrt());
        let denoised = (scaled(&clean, of_clean)? + scaled(sample, of_sample)?)?;
        let next = match self.alphas.get(step + 1) {
            Some(alpha) => {
                let (signal, spread) = factors(*alpha);
                let fresh = noise.randn(sample.dims(), sample.device())?;
                (scaled(&denoised, signal)? + scaled(&fresh, spread)?)?
            }
            None => denoised,
        };
        self.space.position.advance(step);
        Ok(next)
    }
}

/// diffusers' `TCDScheduler` (Zheng et al. 2024): below the next level, as far as eta (the paper's gamma) says, and back
/// up to it with fresh noise.
pub(super) struct Tcd {
    space: PreservingSpace,
    /// The share of signal at each visit.
    alphas: Vec<f32>,
    /// The share of signal after each step, and below it, before noise is added.
    after: Vec<(f32, f32)>,
    eta: f32,
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
            space: PreservingSpace::of_visits(&visits, plan.alphas_cumprod[0], plan.prediction),
            eta,
            alphas: visits.alphas,
            after,
        }
    }
}

impl Scheduler for Tcd {
    fn sampler(&self) -> Sampler {
        Sampler::Tcd
    }

    fn space(&self) -> &dyn Space {
        &self.space
    }

    /// Noise is drawn at every step but the last if eta is above 0, and else never.
    fn step(
        &mut self,
        model_output: &Tensor,
        step: usize,
        sample: &Tensor,
        noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        self.space.position.check_turn(step)?;
        let level = factors(self.alphas[step]);
        let clean = clean_sample(self.space.prediction, model_output, sample, level)?;
        let epsilon = epsilon(self.space.prediction, model_output, sample, level)?;
        let (after, below) = self.after[step];
        let (signal, spread) = factors(below);
        let mut next = (scaled(&clean, signal)? + scaled(&epsilon, spread)?)?;
        if self.eta > 0.0 && step + 1 < self.space.levels.timesteps.len() {
            let (kept, added) = factors(after / below);
            let fresh = noise.randn(sample.dims(), sample.device())?;
            next = (scaled(&next, kept)? + scaled(&fresh, added)?)?;
        }
        self.space.position.advance(step);
        Ok(next)
    }
}
