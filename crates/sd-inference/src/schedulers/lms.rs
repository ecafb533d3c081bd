//! Linear multistep.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::plan::Plan;
use super::prediction::scaled;
use super::sigma_space::{SigmaSpace, derivative};
use super::space::Space;
use super::{FinalSigmas, Result, Sampler, Scheduler};
use crate::rng::NoiseSource;

/// How many slopes count.
const ORDER: usize = 4;

/// diffusers' `LMSDiscreteScheduler`: the polynomial through the last slopes, integrated over the step (Adams and
/// Bashforth's method for uneven steps).
pub(super) struct Lms {
    space: SigmaSpace,
    /// Slopes of the last steps, newest first.
    slopes: VecDeque<Tensor>,
}

impl Lms {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { space: SigmaSpace::new(plan, FinalSigmas::Zero), slopes: VecDeque::new() }
    }

    /// The weight of each of `count` slopes, newest first, in the step after `step`.
    ///
    /// The polynomials are of third degree at most, which two points of Gauss and Legendre integrate exactly.
    fn weights(&self, step: usize, count: usize) -> Vec<f32> {
        let level = |back: usize| f64::from(self.space.levels.sigmas[step - back]);
        let (from, to) = (level(0), f64::from(self.space.levels.sigmas[step + 1]));
        let (middle, half) = ((from + to) / 2.0, (to - from) / 2.0);
        let basis = |of: usize, at: f64| -> f64 {
            let others = (0..count).filter(|other| *other != of);
            others.map(|other| (at - level(other)) / (level(of) - level(other))).product()
        };
        let point = half / 3f64.sqrt();
        let integral = |of| (basis(of, middle - point) + basis(of, middle + point)) * half;
        (0..count).map(|of| integral(of) as f32).collect()
    }
}

impl Scheduler for Lms {
    fn sampler(&self) -> Sampler {
        Sampler::Lms
    }

    fn space(&self) -> &dyn Space {
        &self.space
    }

    /// In a run that begins late the slopes that are known have the weights that they would have beside those of the
    /// steps that were left out, as in the reference.
    fn step(
        &mut self,
        model_output: &Tensor,
        step: usize,
        sample: &Tensor,
        _noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        self.space.position.check_turn(step)?;
        let clean = self.space.clean(model_output, step, sample)?;
        self.slopes.push_front(derivative(sample, &clean, self.space.levels.sigmas[step])?);
        self.slopes.truncate(ORDER);
        let mut next = sample.clone();
        for (weight, slope) in self.weights(step, ORDER.min(step + 1)).into_iter().zip(&self.slopes) {
            next = (next + scaled(slope, weight)?)?;
        }
        self.space.position.advance(step);
        Ok(next)
    }
}
