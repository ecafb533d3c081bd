//! Euler steps, plain and ancestral.

use candle_core::Tensor;

use super::plan::Plan;
use super::prediction::scaled;
use super::sigma_space::{SigmaSpace, ancestral};
use super::space::Space;
use super::{FinalSigmas, Result, Sampler, Scheduler, SchedulerConfig, SchedulerError};
use crate::rng::NoiseSource;

/// diffusers' `EulerDiscreteScheduler` without churn.
pub(super) struct Euler(SigmaSpace);

impl Euler {
    pub(super) fn new(config: &SchedulerConfig, plan: &Plan) -> Result<Self> {
        let only = |field, value: &Option<String>, supported, hint| match value.as_deref() {
            Some(value) if value != supported => {
                Err(SchedulerError::Unsupported { field, value: value.to_owned(), hint })
            }
            _ => Ok(()),
        };
        only("timestep_type", &config.timestep_type, "discrete", "only discrete is")?;
        only("interpolation_type", &config.interpolation_type, "linear", "only linear is")?;
        Ok(Self(SigmaSpace::new(plan, plan.final_sigmas)))
    }
}

impl Scheduler for Euler {
    fn sampler(&self) -> Sampler {
        Sampler::Euler
    }

    fn space(&self) -> &dyn Space {
        &self.0
    }

    fn step(
        &mut self,
        model_output: &Tensor,
        step: usize,
        sample: &Tensor,
        _noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        let next = self.0.levels.sigmas.get(step + 1).copied().unwrap_or(0.0);
        self.0.euler_to(next, model_output, step, sample)
    }
}

/// diffusers' `EulerAncestralDiscreteScheduler`: a step goes below the next level, and fresh noise leads back up to it.
pub(super) struct EulerAncestral(SigmaSpace);

impl EulerAncestral {
    pub(super) fn new(plan: &Plan) -> Self {
        Self(SigmaSpace::new(plan, FinalSigmas::Zero))
    }
}

impl Scheduler for EulerAncestral {
    fn sampler(&self) -> Sampler {
        Sampler::EulerA
    }

    fn space(&self) -> &dyn Space {
        &self.0
    }

    /// Noise is drawn at every step, also the last, where its factor is zero: a later draw of the same generator
    /// depends on it.
    fn step(
        &mut self,
        model_output: &Tensor,
        step: usize,
        sample: &Tensor,
        noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        self.0.position.check_turn(step)?;
        let (down, up) = ancestral(self.0.levels.sigmas[step], self.0.levels.sigmas[step + 1], 1.0);
        let lower = self.0.euler_to(down, model_output, step, sample)?;
        let fresh = noise.randn(sample.dims(), sample.device())?;
        Ok((lower + scaled(&fresh, up)?)?)
    }
}
