//! Denoising diffusion probabilistic models: the chain of the training, backwards.

use candle_core::Tensor;

use super::alphas::{Visits, factors};
use super::plan::Plan;
use super::prediction::{Clip, clean_sample, scaled};
use super::space::{PreservingSpace, Space};
use super::{Result, Sampler, Schedule, Scheduler, SchedulerConfig, SchedulerError};
use crate::rng::NoiseSource;

/// The least variance, as in the reference.
const LEAST_VARIANCE: f32 = 1e-20;

/// diffusers' `DDPMScheduler` (Ho et al. 2020, equations 6 and 7) with a fixed variance.
pub(super) struct Ddpm {
    space: PreservingSpace,
    /// The share of signal at each visit.
    alphas: Vec<f32>,
    clip: Clip,
    /// Whether the variance is that of the forward step, the upper bound, instead of the posterior's.
    large: bool,
}

impl Ddpm {
    pub(super) fn new(config: &SchedulerConfig, plan: &Plan) -> Result<Self> {
        let own_class = config.class_name.as_deref() == Some("DDPMScheduler");
        let large = match config.variance_type.as_deref() {
            None | Some("fixed_small" | "fixed_small_log") => false,
            Some("fixed_large") => true,
            Some(other @ ("fixed_large_log" | "learned" | "learned_range")) if own_class => {
                return Err(SchedulerError::Unsupported {
                    field: "variance_type",
                    value: other.to_owned(),
                    hint: "fixed_small, fixed_small_log and fixed_large are",
                });
            }
            Some(_) => false,
        };
        let visits = match plan.schedule {
            Schedule::Normal => Visits::of_training(plan),
            _ => Visits::of_schedule(plan),
        };
        Ok(Self {
            space: PreservingSpace::of_visits(&visits, 1.0, plan.prediction),
            clip: Clip::new(config, true),
            large,
            alphas: visits.alphas,
        })
    }
}

impl Scheduler for Ddpm {
    fn sampler(&self) -> Sampler {
        Sampler::Ddpm
    }

    fn space(&self) -> &dyn Space {
        &self.space
    }

    /// Noise is drawn at every step but at timestep 0.
    fn step(
        &mut self,
        model_output: &Tensor,
        step: usize,
        sample: &Tensor,
        noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        self.space.position.check_turn(step)?;
        let alpha = self.alphas[step];
        let alpha_next = self.alphas.get(step + 1).copied().unwrap_or(1.0);
        let clean = clean_sample(self.space.prediction, model_output, sample, factors(alpha))?;
        let clean = self.clip.apply(clean)?;

        // The share of signal that this step alone leaves, forwards.
        let kept = alpha / alpha_next;
        let (spread, spread_next) = (1.0 - alpha, 1.0 - alpha_next);
        let of_clean = alpha_next.sqrt() * (1.0 - kept) / spread;
        let of_sample = kept.sqrt() * spread_next / spread;
        let mut next = (scaled(&clean, of_clean)? + scaled(sample, of_sample)?)?;
        if self.space.levels.timesteps[step] > 0.0 {
            let posterior = spread_next / spread * (1.0 - kept);
            let variance = if self.large { 1.0 - kept } else { posterior.max(LEAST_VARIANCE) };
            let fresh = noise.randn(sample.dims(), sample.device())?;
            next = (next + scaled(&fresh, variance.sqrt())?)?;
        }
        self.space.position.advance(step);
        Ok(next)
    }
}
