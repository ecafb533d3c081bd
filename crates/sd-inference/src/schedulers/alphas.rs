//! What the samplers share that keep the sample variance preserving and step by shares of signal.

use super::betas::some_signal;
use super::plan::Plan;
use super::tables::{self, sigma_of};
use super::{FinalSigmas, PredictionType};

/// Where the UNet is asked, and the share of signal in the squared sample there.
pub(super) struct Visits {
    pub(super) timesteps: Vec<f64>,
    pub(super) alphas: Vec<f32>,
}

impl Visits {
    /// The training timesteps that the spacing selects, rounded.
    pub(super) fn of_training(plan: &Plan) -> Self {
        let last = (plan.train() - 1) as f64;
        let spaced = tables::spaced(plan.spacing, plan.train(), plan.steps, plan.offset);
        Self::at(plan, spaced.into_iter().map(|t| t.round_ties_even().min(last)).collect())
    }

    /// These training timesteps, which are whole.
    pub(super) fn at(plan: &Plan, timesteps: Vec<f64>) -> Self {
        let alphas = timesteps.iter().map(|t| signal(plan, *t as usize)).collect();
        Self { timesteps, alphas }
    }

    /// The levels of another schedule than normal, which the reference does not have here.
    pub(super) fn of_schedule(plan: &Plan) -> Self {
        let levels = plan.levels(FinalSigmas::Zero);
        let alphas = levels.sigmas.iter().take(plan.steps).map(|sigma| 1.0 / (sigma * sigma + 1.0)).collect();
        Self { timesteps: levels.timesteps, alphas }
    }

    /// The noise level of each visit as a ratio to the signal, and `last`, the share of signal at the end.
    pub(super) fn sigmas(&self, last: f32) -> Vec<f32> {
        self.alphas.iter().map(|alpha| sigma_of(some_signal(*alpha))).chain([sigma_of(last)]).collect()
    }
}

/// The share of signal at a training timestep, not nothing where a division by it follows.
pub(super) fn signal(plan: &Plan, timestep: usize) -> f32 {
    match plan.prediction {
        PredictionType::Epsilon => some_signal(plan.alphas_cumprod[timestep]),
        _ => plan.alphas_cumprod[timestep],
    }
}

/// Factors of signal and noise in a sample with this share of signal.
pub(super) fn factors(alpha: f32) -> (f32, f32) {
    (alpha.sqrt(), (1.0 - alpha).sqrt())
}
