//! DEIS: exponential integrators on the noise.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::plan::Plan;
use super::prediction::{Thresholding, alpha_sigma, clean_sample, divided, scaled};
use super::space::{PreservingSpace, Space};
use super::{Result, Sampler, Scheduler, SchedulerConfig, SchedulerError};
use crate::rng::NoiseSource;

/// Below this many steps the last ones are of lower order.
const FEW_STEPS: usize = 15;

/// diffusers' `DEISMultistepScheduler` (Zhang and Chen 2022, the logarithmic form of its tAB-DEIS): the polynomial in
/// the logarithm of sigma through the last answers, integrated over sigma.
///
/// As in the reference a run ends at the lowest level of the training and not at none.
pub(super) struct Deis {
    space: PreservingSpace,
    thresholding: Option<Thresholding>,
    order: usize,
    lower_order_final: bool,
    /// The noise that was found in the last steps, newest first.
    noises: VecDeque<Tensor>,
}

impl Deis {
    pub(super) fn new(config: &SchedulerConfig, plan: &Plan) -> Result<Self> {
        let order = config.solver_order.unwrap_or(2);
        if !(1..=3).contains(&order) {
            return Err(SchedulerError::OutOfRange {
                field: "solver_order",
                value: order.to_string(),
                limit: "1 to 3",
            });
        }
        Ok(Self {
            space: PreservingSpace::of_levels(plan.levels_multistep(), plan.prediction),
            thresholding: Thresholding::of(config),
            order,
            lower_order_final: config.lower_order_final.unwrap_or(true) && plan.steps < FEW_STEPS,
            noises: VecDeque::new(),
        })
    }

    /// The order of this step: what is remembered limits it, and so does the end of a short run.
    fn order_of(&self, step: usize) -> usize {
        let left = self.space.position.steps - 1 - step;
        let limit = if self.lower_order_final { left + 1 } else { self.order };
        limit.min(self.order).min(self.noises.len())
    }

    /// The weight of each of the last `order` noises, newest first.
    fn weights(&self, step: usize, order: usize) -> Vec<f32> {
        let level = |back: usize| f64::from(self.space.levels.sigmas[step - back]);
        let (from, to) = (level(0), f64::from(self.space.levels.sigmas[step + 1]));
        let knots: Vec<f64> = (0..order).map(|back| level(back).ln()).collect();
        let weight = |of: usize| {
            let others: Vec<f64> =
                (0..order).filter(|other| *other != of).map(|other| knots[other]).collect();
            let scale: f64 = others.iter().map(|other| knots[of] - other).product();
            ((integral(to, &others) - integral(from, &others)) / scale) as f32
        };
        (0..order).map(weight).collect()
    }
}

/// The antiderivative at `x` of the product of `ln x - c` for each of at most two `c`.
fn integral(x: f64, others: &[f64]) -> f64 {
    let log = x.ln();
    match others {
        [] => x,
        [c] => x * (log - c - 1.0),
        [c, d, ..] => x * ((log - c) * (log - d) - (log - c) - (log - d) + 2.0),
    }
}

impl Scheduler for Deis {
    fn sampler(&self) -> Sampler {
        Sampler::Deis
    }

    fn space(&self) -> &dyn Space {
        &self.space
    }

    fn step(
        &mut self,
        model_output: &Tensor,
        step: usize,
        sample: &Tensor,
        _noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        self.space.position.check_turn(step)?;
        let (alpha, sigma) = alpha_sigma(self.space.levels.sigmas[step]);
        let mut clean = clean_sample(self.space.prediction, model_output, sample, (alpha, sigma))?;
        if let Some(thresholding) = &self.thresholding {
            clean = thresholding.apply(&clean)?;
        }
        self.noises.push_front(divided(&(sample - scaled(&clean, alpha)?)?, sigma)?);
        self.noises.truncate(self.order);

        let mut next = divided(sample, alpha)?;
        let order = self.order_of(step);
        for (weight, noise) in self.weights(step, order).into_iter().zip(&self.noises) {
            next = (next + scaled(noise, weight)?)?;
        }
        self.space.position.advance(step);
        let (alpha_next, _) = alpha_sigma(self.space.levels.sigmas[step + 1]);
        scaled(&next, alpha_next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the sum of 200,000 rectangles.
    #[test]
    fn the_antiderivative_is_one() {
        for others in [vec![], vec![0.7f64], vec![0.7, -1.3]] {
            let (from, to, count) = (0.4f64, 3.0f64, 200_000);
            let width = (to - from) / f64::from(count);
            let at = |i: i32| {
                let log = (from + (f64::from(i) + 0.5) * width).ln();
                others.iter().map(|c| log - c).product::<f64>() * width
            };
            let summed: f64 = (0..count).map(at).sum();
            let found = integral(to, &others) - integral(from, &others);
            assert!((found - summed).abs() < 1e-8, "{others:?}: {found}, not {summed}");
        }
    }
}
