//! Solvers that ask the UNet twice in each step: at its level, and at one on the way or at its end.
//!
//! A run of `n` steps has `2n - 1` evaluations, because the last step goes straight to the clean sample. Even
//! evaluations stand at the beginning of a step, odd ones within it.

use candle_core::Tensor;

use super::plan::{Levels, Plan};
use super::prediction::{Clip, scaled};
use super::sigma_space::{SigmaSpace, euler_step};
use super::space::Space;
use super::{FinalSigmas, Result, Sampler, Scheduler, SchedulerError};
use crate::rng::NoiseSource;

/// What a solver does within one step.
pub(super) trait Rule: Send {
    /// Whose it is.
    fn sampler(&self) -> Sampler;

    /// Where the second evaluation of the step stands; `None`: at its end.
    fn middle(&self, from: f32, to: f32) -> Option<f32>;

    /// From the first evaluation to the second.
    fn half(&mut self, step: &Step<'_>, noise: &mut dyn NoiseSource) -> Result<Tensor>;

    /// From the first evaluation to the end of the step: `half` is what [`Rule::half`] gave, `clean` what the UNet
    /// said of it.
    fn whole(
        &mut self,
        step: &Step<'_>,
        half: &Tensor,
        clean: &Tensor,
        noise: &mut dyn NoiseSource,
    ) -> Result<Tensor>;
}

/// One step between two levels, as its first evaluation saw it.
pub(super) struct Step<'a> {
    pub(super) from: f32,
    /// The level of the second evaluation.
    pub(super) middle: f32,
    pub(super) to: f32,
    pub(super) sample: &'a Tensor,
    pub(super) clean: &'a Tensor,
}

/// The run of such a solver.
pub(super) struct TwoStage<R> {
    rule: R,
    /// With a level for each evaluation.
    space: SigmaSpace,
    /// The level before each step and after the last.
    steps: Vec<f32>,
    clip: Clip,
    /// The sample before the step and its clean form, between the two evaluations.
    begun: Option<(Tensor, Tensor)>,
}

impl<R: Rule> TwoStage<R> {
    pub(super) fn new(rule: R, plan: &Plan, clip: Clip) -> Self {
        let Levels { timesteps, sigmas } = plan.levels(FinalSigmas::Zero);
        // Between the steps, so there is none in the last.
        let pairs = sigmas.windows(2).take(plan.steps - 1);
        let middles: Option<Vec<f32>> = pairs.map(|pair| rule.middle(pair[0], pair[1])).collect();
        let (middle_timesteps, middles) = match middles {
            Some(middles) => (plan.timesteps_at(&middles), middles),
            None => (timesteps[1..].to_vec(), sigmas[1..plan.steps].to_vec()),
        };
        let mut seen = Levels { timesteps: Vec::new(), sigmas: Vec::new() };
        for step in 0..plan.steps {
            seen.timesteps.push(timesteps[step]);
            seen.sigmas.push(sigmas[step]);
            seen.timesteps.extend(middle_timesteps.get(step));
            seen.sigmas.extend(middles.get(step));
        }
        seen.sigmas.push(0.0);
        Self { rule, space: SigmaSpace::with_levels(plan, seen), steps: sigmas, clip, begun: None }
    }

    /// The step that an evaluation belongs to.
    fn between<'a>(&self, evaluation: usize, sample: &'a Tensor, clean: &'a Tensor) -> Step<'a> {
        let step = evaluation / 2;
        let middle = self.space.levels.sigmas[2 * step + 1];
        Step { from: self.steps[step], middle, to: self.steps[step + 1], sample, clean }
    }
}

impl<R: Rule> Scheduler for TwoStage<R> {
    fn sampler(&self) -> Sampler {
        self.rule.sampler()
    }

    fn space(&self) -> &dyn Space {
        &self.space
    }

    fn step(
        &mut self,
        model_output: &Tensor,
        step: usize,
        sample: &Tensor,
        noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        self.space.position.check_turn(step)?;
        let clean = self.clip.apply(self.space.clean(model_output, step, sample)?)?;
        let evaluations = self.space.levels.timesteps.len();
        let next = if step + 1 == evaluations {
            euler_step(sample, &clean, self.steps[step / 2], 0.0)?
        } else if step.is_multiple_of(2) {
            let begun = self.between(step, sample, &clean);
            let half = self.rule.half(&begun, noise)?;
            self.begun = Some((sample.clone(), clean));
            half
        } else {
            let Some((before, first)) = self.begun.take() else {
                return Err(SchedulerError::StepOrder { step, expected: step - 1, steps: evaluations });
            };
            let begun = self.between(step, &before, &first);
            self.rule.whole(&begun, sample, &clean, noise)?
        };
        self.space.position.advance(step);
        Ok(next)
    }

    /// Within a step, the level at its end: what the reference mixes into the kept part of an inpainting there.
    fn add_noise(&self, original: &Tensor, noise: &Tensor, step: usize) -> Result<Tensor> {
        self.space.position.check(step)?;
        Ok((original + scaled(noise, self.steps[step.div_ceil(2)])?)?)
    }
}
