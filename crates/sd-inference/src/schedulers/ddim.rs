//! Denoising diffusion implicit models.

use candle_core::Tensor;

use super::alphas::{Visits, factors, signal};
use super::plan::Plan;
use super::prediction::{Clip, clean_sample, epsilon, scaled};
use super::space::{PreservingSpace, Space};
use super::{Result, Sampler, Schedule, Scheduler, SchedulerConfig};
use crate::rng::NoiseSource;

/// diffusers' `DDIMScheduler` (Song et al. 2020, equations 12 and 16).
///
/// The sample is variance preserving. The timestep before `t` is `t - train / steps` whatever the spacing is, as in
/// the reference. Another schedule than normal, which the reference does not have here, visits its levels by their
/// share of signal.
pub(super) struct Ddim {
    space: PreservingSpace,
    /// The share of signal at each visit.
    alphas: Vec<f32>,
    /// The share of signal after each step.
    after: Vec<f32>,
    clip: Clip,
    eta: f32,
}

impl Ddim {
    pub(super) fn new(config: &SchedulerConfig, plan: &Plan) -> Self {
        let last = if config.set_alpha_to_one.unwrap_or(true) { 1.0 } else { plan.alphas_cumprod[0] };
        let (visits, after) = match plan.schedule {
            Schedule::Normal => {
                let visits = Visits::of_training(plan);
                let stride = plan.train() / plan.steps;
                let before = |t: &f64| (*t as usize).checked_sub(stride).map_or(last, |t| signal(plan, t));
                let after: Vec<f32> = visits.timesteps.iter().map(before).collect();
                (visits, after)
            }
            _ => {
                let visits = Visits::of_schedule(plan);
                let least = visits.alphas.last().copied().unwrap_or_default();
                let after = visits.alphas.iter().skip(1).copied().chain([last.max(least)]).collect();
                (visits, after)
            }
        };
        Self {
            space: PreservingSpace::of_visits(&visits, after.last().copied().unwrap_or(1.0), plan.prediction),
            clip: Clip::new(config, true),
            eta: plan.eta as f32,
            alphas: visits.alphas,
            after,
        }
    }
}

impl Scheduler for Ddim {
    fn sampler(&self) -> Sampler {
        Sampler::Ddim
    }

    fn space(&self) -> &dyn Space {
        &self.space
    }

    /// Noise is drawn at every step if eta is above 0, and else never.
    fn step(
        &mut self,
        model_output: &Tensor,
        step: usize,
        sample: &Tensor,
        noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        self.space.position.check_turn(step)?;
        let (alpha, alpha_next) = (self.alphas[step], self.after[step]);
        let level = factors(alpha);
        let clean = self.clip.apply(clean_sample(self.space.prediction, model_output, sample, level)?)?;
        let epsilon = epsilon(self.space.prediction, model_output, sample, level)?;

        let variance = (1.0 - alpha_next) / (1.0 - alpha) * (1.0 - alpha / alpha_next);
        let deviation = self.eta * variance.max(0.0).sqrt();
        let direction = (1.0 - alpha_next - deviation * deviation).max(0.0).sqrt();
        let mut next = (scaled(&clean, alpha_next.sqrt())? + scaled(&epsilon, direction)?)?;
        if self.eta > 0.0 {
            let fresh = noise.randn(sample.dims(), sample.device())?;
            next = (next + scaled(&fresh, deviation)?)?;
        }
        self.space.position.advance(step);
        Ok(next)
    }
}
