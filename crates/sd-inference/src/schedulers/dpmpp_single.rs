//! DPM-Solver++ in single steps: ancestral, and for the reverse SDE.

use candle_core::Tensor;

use super::prediction::scaled;
use super::sigma_space::{ancestral, exponential_step};
use super::two_stage::{Rule, Step};
use super::{Result, Sampler};
use crate::rng::NoiseSource;

/// The level half way between two, by logarithms.
fn between(from: f32, to: f32) -> f32 {
    let (start, end) = (-from.ln(), -to.ln());
    (-(start + 0.5 * (end - start))).exp()
}

/// k-diffusion's `sample_dpmpp_2s_ancestral`.
pub(super) struct Dpmpp2sAncestral {
    pub(super) eta: f32,
}

impl Rule for Dpmpp2sAncestral {
    fn sampler(&self) -> Sampler {
        Sampler::Dpmpp2sA
    }

    fn middle(&self, from: f32, to: f32) -> Option<f32> {
        Some(between(from, ancestral(from, to, self.eta).0))
    }

    fn half(&mut self, step: &Step<'_>, _noise: &mut dyn NoiseSource) -> Result<Tensor> {
        exponential_step(step.sample, step.clean, step.from, step.middle)
    }

    /// Noise is drawn at the end of every step but the last, also where eta is 0: so k-diffusion draws it.
    fn whole(
        &mut self,
        step: &Step<'_>,
        _half: &Tensor,
        clean: &Tensor,
        noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        let (down, up) = ancestral(step.from, step.to, self.eta);
        let lower = exponential_step(step.sample, clean, step.from, down)?;
        let fresh = noise.randn(clean.dims(), clean.device())?;
        Ok((lower + scaled(&fresh, up)?)?)
    }
}

/// diffusers' `DPMSolverSDEScheduler`, k-diffusion's `sample_dpmpp_sde`.
///
/// Both parts of a step see the same Brownian path: its increment over the whole step is the one over the first part
/// and a fresh one. The reference takes the path from a tree that it seeds by itself; here it is made of plain normals
/// of the run's own noise, two draws in each step, so that the seed alone says what comes out.
#[derive(Default)]
pub(super) struct DpmppSde {
    /// The path's increment over the first part, unit variance.
    first: Option<Tensor>,
}

/// From one level down and back up to another, with this noise of unit variance.
fn noisy_step(sample: &Tensor, clean: &Tensor, from: f32, to: f32, noise: &Tensor) -> Result<Tensor> {
    let (down, up) = ancestral(from, to, 1.0);
    Ok((exponential_step(sample, clean, from, down)? + scaled(noise, up)?)?)
}

impl Rule for DpmppSde {
    fn sampler(&self) -> Sampler {
        Sampler::DpmppSde
    }

    fn middle(&self, from: f32, to: f32) -> Option<f32> {
        Some(between(from, to))
    }

    fn half(&mut self, step: &Step<'_>, noise: &mut dyn NoiseSource) -> Result<Tensor> {
        let fresh = noise.randn(step.sample.dims(), step.sample.device())?;
        let half = noisy_step(step.sample, step.clean, step.from, step.middle, &fresh)?;
        self.first = Some(fresh);
        Ok(half)
    }

    fn whole(
        &mut self,
        step: &Step<'_>,
        _half: &Tensor,
        clean: &Tensor,
        noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        let fresh = noise.randn(clean.dims(), clean.device())?;
        let path = match self.first.take() {
            None => fresh,
            Some(first) => {
                let share = (step.from - step.middle) / (step.from - step.to);
                (scaled(&first, share.sqrt())? + scaled(&fresh, (1.0 - share).sqrt())?)?
            }
        };
        noisy_step(step.sample, clean, step.from, step.to, &path)
    }
}
