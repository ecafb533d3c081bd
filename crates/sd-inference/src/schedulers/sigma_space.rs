//! What the samplers share that keep the signal unscaled: the sample carries noise of standard deviation sigma.

use candle_core::Tensor;

use super::plan::{Levels, Plan};
use super::prediction::{clean_unscaled, divided, scaled};
use super::space::Space;
use super::{FinalSigmas, Position, PredictionType, Result, TimestepSpacing};

/// Levels, place and the meaning of the UNet's answers.
pub(super) struct SigmaSpace {
    pub(super) levels: Levels,
    pub(super) prediction: PredictionType,
    spacing: TimestepSpacing,
    pub(super) position: Position,
}

impl SigmaSpace {
    pub(super) fn new(plan: &Plan, final_sigmas: FinalSigmas) -> Self {
        Self::with_levels(plan, plan.levels(final_sigmas))
    }

    /// With one level for each evaluation of the UNet, and one for the end.
    pub(super) fn with_levels(plan: &Plan, levels: Levels) -> Self {
        Self {
            prediction: plan.prediction,
            spacing: plan.spacing,
            position: Position::new(levels.timesteps.len()),
            levels,
        }
    }

    /// The clean sample that the UNet's answer at this step means.
    pub(super) fn clean(&self, model_output: &Tensor, step: usize, sample: &Tensor) -> Result<Tensor> {
        clean_unscaled(self.prediction, model_output, sample, self.levels.sigmas[step])
    }

    /// One Euler step to the level `next`.
    pub(super) fn euler_to(
        &mut self,
        next: f32,
        model_output: &Tensor,
        step: usize,
        sample: &Tensor,
    ) -> Result<Tensor> {
        self.position.check_turn(step)?;
        let clean = self.clean(model_output, step, sample)?;
        let moved = euler_step(sample, &clean, self.levels.sigmas[step], next)?;
        self.position.advance(step);
        Ok(moved)
    }
}

impl Space for SigmaSpace {
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
        let highest = self.levels.sigmas.iter().copied().fold(0.0, f32::max);
        f64::from(match self.spacing {
            TimestepSpacing::Linspace | TimestepSpacing::Trailing => highest,
            TimestepSpacing::Leading => (highest * highest + 1.0).sqrt(),
        })
    }

    fn scale_model_input(&self, sample: &Tensor, step: usize) -> Result<Tensor> {
        self.position.check(step)?;
        let sigma = self.levels.sigmas[step];
        divided(sample, (sigma * sigma + 1.0).sqrt())
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, step: usize) -> Result<Tensor> {
        self.position.check(step)?;
        Ok((original + scaled(noise, self.levels.sigmas[step])?)?)
    }
}

/// How the sample changes with sigma on the probability-flow ODE.
pub(super) fn derivative(sample: &Tensor, clean: &Tensor, sigma: f32) -> Result<Tensor> {
    divided(&(sample - clean)?, sigma)
}

/// A straight line from one level to another.
pub(super) fn euler_step(sample: &Tensor, clean: &Tensor, from: f32, to: f32) -> Result<Tensor> {
    Ok((sample + scaled(&derivative(sample, clean, from)?, to - from)?)?)
}

/// The exact solution between two levels if the clean sample stays as it is.
pub(super) fn exponential_step(sample: &Tensor, clean: &Tensor, from: f32, to: f32) -> Result<Tensor> {
    let kept = to / from;
    Ok((scaled(sample, kept)? + scaled(clean, 1.0 - kept)?)?)
}

/// How far an ancestral step goes down, and the deviation of the noise that leads back up to `to` (k-diffusion).
pub(super) fn ancestral(from: f32, to: f32, eta: f32) -> (f32, f32) {
    let up = (eta * (to * to * (from * from - to * to) / (from * from)).sqrt()).min(to);
    ((to * to - up * up).max(0.0).sqrt(), up)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ancestral_step_comes_back_up_to_its_level() {
        for (from, to) in [(14.6, 9.0), (2.0, 0.5), (0.3, 0.03), (4096.0, 1.0)] {
            for eta in [0.0, 0.4, 1.0] {
                let (down, up) = ancestral(from, to, eta);
                assert!(
                    (down * down + up * up - to * to).abs() < 1e-5 * to * to,
                    "{from} to {to}, eta {eta}"
                );
                assert!(down <= to && (eta > 0.0 || down == to));
            }
        }
    }
}
