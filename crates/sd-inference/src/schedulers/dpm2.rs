//! Midpoint steps in the logarithm of sigma, plain and ancestral: k-diffusion's DPM-Solver-2.

use candle_core::Tensor;

use super::prediction::scaled;
use super::sigma_space::{ancestral, derivative, euler_step};
use super::two_stage::{Rule, Step};
use super::{Result, Sampler};
use crate::rng::NoiseSource;

/// The level half way between two, by logarithms.
fn between(from: f32, to: f32) -> f32 {
    let (from, to) = (from.ln(), to.ln());
    (from - (from - to) * 0.5).exp()
}

/// From before the step down to `to`, along the slope that was found in its middle.
fn along_middle(step: &Step<'_>, half: &Tensor, clean: &Tensor, to: f32) -> Result<Tensor> {
    if step.middle == 0.0 {
        // The step is so long that what is left rounds to nothing: there is no slope there.
        return euler_step(step.sample, step.clean, step.from, to);
    }
    let slope = derivative(half, clean, step.middle)?;
    Ok((step.sample + scaled(&slope, to - step.from)?)?)
}

/// diffusers' `KDPM2DiscreteScheduler`.
pub(super) struct Dpm2;

impl Rule for Dpm2 {
    fn sampler(&self) -> Sampler {
        Sampler::Dpm2
    }

    fn middle(&self, from: f32, to: f32) -> Option<f32> {
        Some(between(from, to))
    }

    fn half(&mut self, step: &Step<'_>, _noise: &mut dyn NoiseSource) -> Result<Tensor> {
        euler_step(step.sample, step.clean, step.from, step.middle)
    }

    fn whole(
        &mut self,
        step: &Step<'_>,
        half: &Tensor,
        clean: &Tensor,
        _noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        along_middle(step, half, clean, step.to)
    }
}

/// diffusers' `KDPM2AncestralDiscreteScheduler`.
pub(super) struct Dpm2Ancestral;

impl Rule for Dpm2Ancestral {
    fn sampler(&self) -> Sampler {
        Sampler::Dpm2A
    }

    fn middle(&self, from: f32, to: f32) -> Option<f32> {
        Some(between(from, ancestral(from, to, 1.0).0))
    }

    fn half(&mut self, step: &Step<'_>, _noise: &mut dyn NoiseSource) -> Result<Tensor> {
        euler_step(step.sample, step.clean, step.from, step.middle)
    }

    /// Noise is drawn at the end of every step but the last.
    fn whole(
        &mut self,
        step: &Step<'_>,
        half: &Tensor,
        clean: &Tensor,
        noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        let (down, up) = ancestral(step.from, step.to, 1.0);
        let lower = along_middle(step, half, clean, down)?;
        let fresh = noise.randn(half.dims(), half.device())?;
        Ok((lower + scaled(&fresh, up)?)?)
    }
}
