//! Euler steps, plain and ancestral.

use candle_core::Tensor;

use super::plan::{Levels, Plan};
use super::prediction::{divided, scaled};
use super::{
    FinalSigmas, Position, PredictionType, Result, Sampler, Scheduler, SchedulerConfig, SchedulerError,
    TimestepSpacing,
};
use crate::rng::NoiseSource;

/// diffusers' `EulerDiscreteScheduler` without churn.
pub(super) struct Euler(Common);

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
        Ok(Self(Common::new(plan, plan.final_sigmas)))
    }
}

impl Scheduler for Euler {
    fn sampler(&self) -> Sampler {
        Sampler::Euler
    }

    fn prediction(&self) -> PredictionType {
        self.0.prediction
    }

    fn timesteps(&self) -> &[f64] {
        &self.0.levels.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.0.levels.sigmas
    }

    fn init_noise_sigma(&self) -> f64 {
        self.0.init_noise_sigma()
    }

    fn scale_model_input(&self, sample: &Tensor, step: usize) -> Result<Tensor> {
        self.0.scale_model_input(sample, step)
    }

    fn step(
        &mut self,
        model_output: &Tensor,
        step: usize,
        sample: &Tensor,
        _noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        let next = self.0.levels.sigmas.get(step + 1).copied().unwrap_or(0.0);
        self.0.step_to(next, model_output, step, sample)
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, step: usize) -> Result<Tensor> {
        self.0.add_noise(original, noise, step)
    }
}

/// diffusers' `EulerAncestralDiscreteScheduler`: a step goes below the next level, and fresh noise leads back up to it.
pub(super) struct EulerAncestral(Common);

impl EulerAncestral {
    pub(super) fn new(plan: &Plan) -> Self {
        Self(Common::new(plan, FinalSigmas::Zero))
    }
}

impl Scheduler for EulerAncestral {
    fn sampler(&self) -> Sampler {
        Sampler::EulerA
    }

    fn prediction(&self) -> PredictionType {
        self.0.prediction
    }

    fn timesteps(&self) -> &[f64] {
        &self.0.levels.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.0.levels.sigmas
    }

    fn init_noise_sigma(&self) -> f64 {
        self.0.init_noise_sigma()
    }

    fn scale_model_input(&self, sample: &Tensor, step: usize) -> Result<Tensor> {
        self.0.scale_model_input(sample, step)
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
        let (from, to) = (self.0.levels.sigmas[step], self.0.levels.sigmas[step + 1]);
        let up = (to * to * (from * from - to * to) / (from * from)).sqrt();
        let down = (to * to - up * up).max(0.0).sqrt();
        let lower = self.0.step_to(down, model_output, step, sample)?;
        let fresh = noise.randn(sample.dims(), sample.device())?;
        Ok((lower + scaled(&fresh, up)?)?)
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, step: usize) -> Result<Tensor> {
        self.0.add_noise(original, noise, step)
    }
}

/// What both share. The sample carries noise of standard deviation sigma on an unscaled signal.
struct Common {
    levels: Levels,
    prediction: PredictionType,
    spacing: TimestepSpacing,
    position: Position,
}

impl Common {
    fn new(plan: &Plan, final_sigmas: FinalSigmas) -> Self {
        Self {
            levels: plan.levels(final_sigmas),
            prediction: plan.prediction,
            spacing: plan.spacing,
            position: Position::new(plan.steps),
        }
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

    fn step_to(&mut self, next: f32, model_output: &Tensor, step: usize, sample: &Tensor) -> Result<Tensor> {
        self.position.check_turn(step)?;
        let sigma = self.levels.sigmas[step];
        let clean = match self.prediction {
            PredictionType::Epsilon => (sample - scaled(model_output, sigma)?)?,
            PredictionType::Sample => model_output.clone(),
            PredictionType::VPrediction => {
                let square = sigma * sigma + 1.0;
                (scaled(model_output, -sigma / square.sqrt())? + divided(sample, square)?)?
            }
        };
        let derivative = divided(&(sample - clean)?, sigma)?;
        let moved = (sample + scaled(&derivative, next - sigma)?)?;
        self.position.advance(step);
        Ok(moved)
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, step: usize) -> Result<Tensor> {
        self.position.check(step)?;
        Ok((original + scaled(noise, self.levels.sigmas[step])?)?)
    }
}
