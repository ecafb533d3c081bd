//! DPM-Solver++ in single steps: ancestral, and for the reverse SDE.

use candle_core::Tensor;

use super::path_noise::PathNoise;
use super::plan::Plan;
use super::prediction::scaled;
use super::sigma_space::{ancestral, exponential_step};
use super::two_stage::{Rule, Step};
use super::{FinalSigmas, Result, Sampler};
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
/// Both parts of a step see the same Brownian path, which is fixed by the image's seed. A source that tells no seeds gives
/// plain normals, two draws in each step: the increment over the whole step is then the one over the first part and a
/// fresh one.
pub(super) struct DpmppSde {
    path: PathNoise,
    /// The increment over the first part, unit variance, where it is a plain draw.
    first: Option<Tensor>,
}

impl DpmppSde {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { path: PathNoise::new(&plan.levels(FinalSigmas::Zero).sigmas), first: None }
    }

    /// What the path does on the way from one level to a part of the way to the next, by logarithms: a half, or all of it.
    ///
    /// The reference asks for the levels that it computes back from their logarithms.
    fn noise(
        &mut self,
        (from, to, part): (f32, f32, f32),
        like: &Tensor,
        noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        let logarithm = |sigma: f32| -(f64::from(sigma).ln() as f32);
        let level = |logarithm: f32| f64::from(-logarithm).exp() as f32;
        let (start, end) = (logarithm(from), logarithm(to));
        let reached = if part == 1.0 { end } else { start + part * (end - start) };
        self.path.between(level(start), level(reached), like.dims(), like.device(), noise)
    }
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
        let fresh = self.noise((step.from, step.to, 0.5), step.sample, noise)?;
        let half = noisy_step(step.sample, step.clean, step.from, step.middle, &fresh)?;
        self.first = Some(fresh).filter(|_| !self.path.has_paths());
        Ok(half)
    }

    fn whole(
        &mut self,
        step: &Step<'_>,
        _half: &Tensor,
        clean: &Tensor,
        noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        let fresh = self.noise((step.from, step.to, 1.0), clean, noise)?;
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
