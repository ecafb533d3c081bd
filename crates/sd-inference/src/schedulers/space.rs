//! In which scale a run keeps its samples: what the samplers otherwise have in common.

use candle_core::Tensor;

use super::alphas::{Visits, factors};
use super::plan::Levels;
use super::prediction::{alpha_sigma, scaled};
use super::{Position, PredictionType, Result};

/// The levels of a run, and how samples stand at them.
///
/// There are two: samples whose signal is unscaled and whose noise has the deviation sigma (k-diffusion's, and the
/// Euler family's in diffusers), and variance-preserving ones, whose signal shrinks as their noise grows.
pub trait Space: Send {
    /// See [`Scheduler::prediction`](super::Scheduler::prediction).
    fn prediction(&self) -> PredictionType;

    /// See [`Scheduler::timesteps`](super::Scheduler::timesteps).
    fn timesteps(&self) -> &[f64];

    /// See [`Scheduler::sigmas`](super::Scheduler::sigmas).
    fn sigmas(&self) -> &[f32];

    /// See [`Scheduler::init_noise_sigma`](super::Scheduler::init_noise_sigma).
    fn init_noise_sigma(&self) -> f64;

    /// See [`Scheduler::scale_model_input`](super::Scheduler::scale_model_input).
    fn scale_model_input(&self, sample: &Tensor, step: usize) -> Result<Tensor>;

    /// See [`Scheduler::add_noise`](super::Scheduler::add_noise).
    fn add_noise(&self, original: &Tensor, noise: &Tensor, step: usize) -> Result<Tensor>;
}

/// Variance-preserving samples: the UNet sees them as they are.
pub(super) struct PreservingSpace {
    pub(super) levels: Levels,
    /// Signal and noise in the sample of each step.
    factors: Vec<(f32, f32)>,
    pub(super) prediction: PredictionType,
    pub(super) position: Position,
}

impl PreservingSpace {
    /// Of solvers that think in noise levels.
    pub(super) fn of_levels(levels: Levels, prediction: PredictionType) -> Self {
        let steps = levels.timesteps.len();
        let factors = levels.sigmas.iter().take(steps).map(|sigma| alpha_sigma(*sigma)).collect();
        Self { levels, factors, prediction, position: Position::new(steps) }
    }

    /// Of solvers that think in shares of signal, and end at the share `last`.
    pub(super) fn of_visits(visits: &Visits, last: f32, prediction: PredictionType) -> Self {
        Self {
            levels: Levels { timesteps: visits.timesteps.clone(), sigmas: visits.sigmas(last) },
            factors: visits.alphas.iter().map(|alpha| factors(*alpha)).collect(),
            prediction,
            position: Position::new(visits.timesteps.len()),
        }
    }
}

impl Space for PreservingSpace {
    fn prediction(&self) -> PredictionType {
        self.prediction
    }

    fn timesteps(&self) -> &[f64] {
        &self.levels.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.levels.sigmas
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn scale_model_input(&self, sample: &Tensor, step: usize) -> Result<Tensor> {
        self.position.check(step)?;
        Ok(sample.clone())
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, step: usize) -> Result<Tensor> {
        self.position.check(step)?;
        let (signal, spread) = self.factors[step];
        Ok((scaled(original, signal)? + scaled(noise, spread)?)?)
    }
}
