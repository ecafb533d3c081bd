//! Pseudo numerical methods: linear multistep on the noise, with DDIM's transfer between levels.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::alphas::{Visits, factors};
use super::betas::some_signal;
use super::plan::Plan;
use super::prediction::{divided, epsilon, scaled};
use super::space::{PreservingSpace, Space};
use super::{Result, Sampler, Schedule, Scheduler, SchedulerConfig};
use crate::rng::NoiseSource;

/// How many answers of the UNet count.
const ORDER: usize = 4;

/// diffusers' `PNDMScheduler` with `skip_prk_steps` (Liu et al. 2022; PLMS).
///
/// The first step is taken twice, the second time with the mean of the slopes at both ends: a run of `n` steps asks the
/// UNet `n + 1` times, twice at its second timestep. The weights of the later steps are made for even spacing; on
/// another schedule than normal, which the reference does not have here, they are of first order only.
pub(super) struct Pndm {
    space: PreservingSpace,
    /// The share of signal before and after the step that each visit stands for.
    transfers: Vec<(f32, f32)>,
    /// The same for the first step's repetition, which ends where the visit stands.
    repetitions: Vec<(f32, f32)>,
    /// How often the UNet has answered.
    count: usize,
    /// The sample before the first step, until that is repeated.
    first: Option<Tensor>,
    /// What the UNet answered in the last steps, newest first.
    outputs: VecDeque<Tensor>,
}

impl Pndm {
    pub(super) fn new(config: &SchedulerConfig, plan: &Plan) -> Self {
        let last = if config.set_alpha_to_one.unwrap_or(false) { 1.0 } else { plan.alphas_cumprod[0] };
        let (once, before, after) = match plan.schedule {
            Schedule::Normal => on_training_steps(plan, last),
            _ => on_schedule(plan, last),
        };
        // The second timestep is visited twice.
        let order = (0..plan.steps).flat_map(|step| vec![step; if step == 1 { 2 } else { 1 }]);
        let order: Vec<usize> = order.collect();
        let visits = Visits {
            timesteps: order.iter().map(|step| once.timesteps[*step]).collect(),
            alphas: order.iter().map(|step| once.alphas[*step]).collect(),
        };
        Self {
            space: PreservingSpace::of_visits(
                &visits,
                after.last().copied().unwrap_or(last),
                plan.prediction,
            ),
            transfers: order.iter().map(|step| (once.alphas[*step], after[*step])).collect(),
            repetitions: order.iter().map(|step| (before[*step], once.alphas[*step])).collect(),
            count: 0,
            first: None,
            outputs: VecDeque::new(),
        }
    }

    /// The answer that counts: what the last ones say of the middle of the step.
    fn combined(&self) -> Result<Tensor> {
        let sum = |weights: &[f32]| -> Result<Tensor> {
            let mut sum = scaled(&self.outputs[0], weights[0])?;
            for (output, weight) in self.outputs.iter().zip(weights).skip(1) {
                sum = (sum + scaled(output, *weight)?)?;
            }
            Ok(sum)
        };
        match self.outputs.len() {
            0 | 1 => Ok(self.outputs[0].clone()),
            2 => divided(&sum(&[3.0, -1.0])?, 2.0),
            3 => divided(&sum(&[23.0, -16.0, 5.0])?, 12.0),
            _ => scaled(&sum(&[55.0, -59.0, 37.0, -9.0])?, 1.0 / 24.0),
        }
    }

    /// The sample moved between two shares of signal (equation 9 of the paper).
    fn transfer(&self, sample: &Tensor, output: &Tensor, (alpha, after): (f32, f32)) -> Result<Tensor> {
        let noise = epsilon(self.space.prediction, output, sample, factors(alpha))?;
        let divisor = alpha * (1.0 - after).sqrt() + (alpha * (1.0 - alpha) * after).sqrt();
        let moved = divided(&scaled(&noise, after - alpha)?, divisor)?;
        Ok((scaled(sample, (after / alpha).sqrt())? - moved)?)
    }
}

/// Each timestep once, with the shares of signal one step before and after it.
type Steps = (Visits, Vec<f32>, Vec<f32>);

/// The reference takes a step as `train / steps` timesteps whatever the spacing is.
fn on_training_steps(plan: &Plan, last: f32) -> Steps {
    let visits = Visits::of_training(plan);
    let stride = plan.train() / plan.steps;
    let alpha = |t: usize| some_signal(plan.alphas_cumprod[t.min(plan.train() - 1)]);
    let before = visits.timesteps.iter().map(|t| alpha(*t as usize + stride)).collect();
    let after =
        visits.timesteps.iter().map(|t| (*t as usize).checked_sub(stride).map_or(last, alpha)).collect();
    let alphas = visits.alphas.iter().map(|alpha| some_signal(*alpha)).collect();
    (Visits { alphas, ..visits }, before, after)
}

fn on_schedule(plan: &Plan, last: f32) -> Steps {
    let visits = Visits::of_schedule(plan);
    let alphas = &visits.alphas;
    let least = alphas.last().copied().unwrap_or_default();
    let before = alphas.iter().take(1).chain(alphas).take(plan.steps).copied().collect();
    let after = alphas.iter().skip(1).copied().chain([last.max(least)]).collect();
    (visits, before, after)
}

impl Scheduler for Pndm {
    fn sampler(&self) -> Sampler {
        Sampler::Pndm
    }

    fn space(&self) -> &dyn Space {
        &self.space
    }

    /// A run that begins late repeats its own first step.
    fn step(
        &mut self,
        model_output: &Tensor,
        step: usize,
        sample: &Tensor,
        _noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        self.space.position.check_turn(step)?;
        let next = match self.first.take() {
            Some(before) if self.count == 1 => {
                let mean = divided(&(model_output + &self.outputs[0])?, 2.0)?;
                self.transfer(&before, &mean, self.repetitions[step])?
            }
            _ => {
                if self.count == 0 {
                    self.first = Some(sample.clone());
                }
                self.outputs.push_front(model_output.clone());
                self.outputs.truncate(ORDER);
                self.transfer(sample, &self.combined()?, self.transfers[step])?
            }
        };
        self.count += 1;
        self.space.position.advance(step);
        Ok(next)
    }
}
