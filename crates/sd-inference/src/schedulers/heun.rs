//! Heun's method.

use candle_core::Tensor;

use super::prediction::scaled;
use super::sigma_space::{derivative, euler_step};
use super::two_stage::{Rule, Step};
use super::{Result, Sampler};
use crate::rng::NoiseSource;

/// diffusers' `HeunDiscreteScheduler` (Karras et al. 2022, algorithm 1): an Euler step, then once more with the mean
/// of the slopes at both ends.
pub(super) struct Heun;

impl Rule for Heun {
    fn sampler(&self) -> Sampler {
        Sampler::Heun
    }

    fn middle(&self, _from: f32, _to: f32) -> Option<f32> {
        None
    }

    fn half(&mut self, step: &Step<'_>, _noise: &mut dyn NoiseSource) -> Result<Tensor> {
        euler_step(step.sample, step.clean, step.from, step.to)
    }

    fn whole(
        &mut self,
        step: &Step<'_>,
        half: &Tensor,
        clean: &Tensor,
        _noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        let before = derivative(step.sample, step.clean, step.from)?;
        let after = derivative(half, clean, step.to)?;
        let mean = scaled(&(before + after)?, 0.5)?;
        Ok((step.sample + scaled(&mean, step.to - step.from)?)?)
    }
}
