//! UniPC: each answer of the UNet corrects the step before it and predicts the next.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::plan::Plan;
use super::prediction::{Thresholding, alpha_sigma, clean_sample, divided, lambda, scaled};
use super::space::{PreservingSpace, Space};
use super::{Result, Sampler, Scheduler, SchedulerConfig, SchedulerError};
use crate::rng::NoiseSource;

/// diffusers' `UniPCMultistepScheduler` on the clean sample (Zhao et al. 2023).
pub(super) struct UniPc {
    space: PreservingSpace,
    thresholding: Option<Thresholding>,
    basis: Basis,
    order: usize,
    lower_order_final: bool,
    disable_corrector: Vec<usize>,
    /// Clean samples of the last steps, newest first.
    clean: VecDeque<Tensor>,
    /// The corrected sample before the last step, and the order of that step.
    before: Option<(Tensor, usize)>,
}

/// The function B(h) of the paper.
#[derive(Clone, Copy, PartialEq)]
enum Basis {
    /// B(h) = h.
    Bh1,
    /// B(h) = e^h - 1.
    Bh2,
}

impl UniPc {
    pub(super) fn new(config: &SchedulerConfig, plan: &Plan) -> Result<Self> {
        if config.predict_x0 == Some(false) {
            return Err(SchedulerError::Unsupported {
                field: "predict_x0",
                value: "false".to_owned(),
                hint: "only true is",
            });
        }
        let order = config.solver_order.unwrap_or(2);
        if !(1..=5).contains(&order) {
            return Err(SchedulerError::OutOfRange {
                field: "solver_order",
                value: order.to_string(),
                limit: "1 to 5",
            });
        }
        Ok(Self {
            space: PreservingSpace::of_levels(plan.levels_multistep(), plan.prediction),
            thresholding: Thresholding::of(config),
            basis: basis(config)?,
            order,
            lower_order_final: config.lower_order_final.unwrap_or(true),
            disable_corrector: config.disable_corrector.clone().unwrap_or_default(),
            clean: VecDeque::new(),
            before: None,
        })
    }

    /// The order of this step: what is remembered limits it, and so does the end of the run.
    fn order_of(&self, step: usize) -> usize {
        let left = self.space.position.steps - step;
        let limit = if self.lower_order_final {
            self.order.min(left)
        } else if self.space.levels.sigmas[step + 1] > 0.0 {
            self.order
        } else {
            1 // the distance to a level without noise is infinite: nothing can be extrapolated over it
        };
        limit.min(self.clean.len())
    }

    /// From the level of `step` to the next, by `order` remembered clean samples.
    fn predict(&self, step: usize, order: usize, sample: &Tensor) -> Result<Tensor> {
        let interval = self.interval(step, order);
        let m0 = &self.clean[0];
        let start = interval.first_order(sample, m0)?;
        if order == 1 {
            return Ok(start);
        }
        // for order 2 the reference takes a half, which is its limit for small steps
        let weights = if order == 2 { vec![0.5] } else { interval.weights(order - 1) };
        let differences = self.differences(&interval)?;
        interval.add_differences(start, &weights, &differences)
    }

    /// The last step once more, now that the clean sample at its end is known.
    fn correct(&self, step: usize, order: usize, before: &Tensor, clean: &Tensor) -> Result<Tensor> {
        let interval = self.interval(step - 1, order);
        let m0 = &self.clean[0];
        let start = interval.first_order(before, m0)?;
        let weights = if order == 1 { vec![0.5] } else { interval.weights(order) };
        let mut differences = self.differences(&interval)?;
        differences.push((clean - m0)?);
        interval.add_differences(start, &weights, &differences)
    }

    /// Slopes of the clean sample from the start of the interval to the levels before it.
    fn differences(&self, interval: &Interval) -> Result<Vec<Tensor>> {
        let earlier = self.clean.iter().skip(1).zip(&interval.ratios);
        earlier.map(|(clean, ratio)| divided(&(clean - &self.clean[0])?, *ratio)).collect()
    }

    fn interval(&self, step: usize, order: usize) -> Interval {
        let sigmas = &self.space.levels.sigmas;
        let (alpha, sigma_t) = alpha_sigma(sigmas[step + 1]);
        let (_, sigma_s) = alpha_sigma(sigmas[step]);
        let start = lambda(sigmas[step]);
        let h = lambda(sigmas[step + 1]) - start;
        let hh = -h;
        let phi1 = exp_m1(hh);
        let basis = match self.basis {
            Basis::Bh1 => hh,
            Basis::Bh2 => phi1,
        };
        let ratios = (1..order).map(|back| (lambda(sigmas[step - back]) - start) / h).collect();
        Interval { alpha, noise_ratio: sigma_t / sigma_s, hh, phi1, basis, ratios }
    }
}

/// The numbers of one step between two levels.
///
/// They are f32 and in the reference's order of operations: the weights come from differences of nearly equal
/// numbers, so with small steps their last digits are rounding, and to be the same they must be rounded alike.
struct Interval {
    /// Signal factor at the end.
    alpha: f32,
    /// Noise factor at the end over that at the start.
    noise_ratio: f32,
    /// Minus the distance in lambda.
    hh: f32,
    /// e^hh - 1.
    phi1: f32,
    /// B(hh).
    basis: f32,
    /// Where earlier levels lie, in units of the distance; negative.
    ratios: Vec<f32>,
}

impl Interval {
    fn first_order(&self, sample: &Tensor, clean: &Tensor) -> Result<Tensor> {
        Ok((scaled(sample, self.noise_ratio)? - scaled(clean, self.alpha * self.phi1)?)?)
    }

    fn add_differences(&self, start: Tensor, weights: &[f32], differences: &[Tensor]) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for (weight, difference) in weights.iter().zip(differences) {
            let term = scaled(difference, *weight)?;
            sum = Some(match sum {
                None => term,
                Some(sum) => (sum + term)?,
            });
        }
        Ok(match sum {
            None => start,
            Some(sum) => (start - scaled(&sum, self.alpha * self.basis)?)?,
        })
    }

    /// The first `count` weights: the solution of `sum_j ratio_j^i * weight_j = b_i` (equation 9 of the paper), the
    /// last ratio being the end of the interval.
    fn weights(&self, count: usize) -> Vec<f32> {
        let ratios: Vec<f32> = self.ratios.iter().copied().chain([1.0]).take(count).collect();
        let mut phi = self.phi1 / self.hh - 1.0;
        let mut factorial = 1.0;
        let mut rows = Vec::with_capacity(count);
        for i in 0..count {
            let mut row: Vec<f32> = ratios.iter().map(|ratio| ratio.powi(i as i32)).collect();
            row.push(phi * factorial / self.basis);
            rows.push(row);
            factorial *= (i + 2) as f32;
            phi = phi / self.hh - 1.0 / factorial;
        }
        solve(rows)
    }
}

/// e^x - 1, rounded to f32 once, on every platform alike.
fn exp_m1(x: f32) -> f32 {
    f64::from(x).exp_m1() as f32
}

/// Gaussian elimination with partial pivoting; the last column is the right side.
fn solve(mut rows: Vec<Vec<f32>>) -> Vec<f32> {
    let count = rows.len();
    for column in 0..count {
        let pivot = (column..count).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()));
        rows.swap(column, pivot.unwrap_or(column));
        let (done, below) = rows.split_at_mut(column + 1);
        let pivot = &done[column];
        for row in below {
            let factor = row[column] / pivot[column];
            row.iter_mut().zip(pivot).skip(column).for_each(|(value, above)| *value -= factor * above);
        }
    }
    let mut solution = vec![0f32; count];
    for i in (0..count).rev() {
        let known: f32 = (i + 1..count).map(|j| rows[i][j] * solution[j]).sum();
        solution[i] = (rows[i][count] - known) / rows[i][i];
    }
    solution
}

fn basis(config: &SchedulerConfig) -> Result<Basis> {
    match config.solver_type.as_deref() {
        // names of other solvers' types mean the default, as in the reference
        None | Some("bh2" | "midpoint" | "heun" | "logrho") => Ok(Basis::Bh2),
        Some("bh1") => Ok(Basis::Bh1),
        Some(other) => Err(SchedulerError::UnknownName {
            field: "solver_type",
            value: other.to_owned(),
            allowed: "bh1, bh2".to_owned(),
        }),
    }
}

impl Scheduler for UniPc {
    fn sampler(&self) -> Sampler {
        Sampler::UniPc
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
        let level = alpha_sigma(self.space.levels.sigmas[step]);
        let mut clean = clean_sample(self.space.prediction, model_output, sample, level)?;
        if let Some(thresholding) = &self.thresholding {
            clean = thresholding.apply(&clean)?;
        }
        let sample = match &self.before {
            Some((before, order)) if !self.disable_corrector.contains(&(step - 1)) => {
                self.correct(step, *order, before, &clean)?
            }
            _ => sample.clone(),
        };
        self.clean.push_front(clean);
        self.clean.truncate(self.order);

        let order = self.order_of(step);
        let next = self.predict(step, order, &sample)?;
        self.before = Some((sample, order));
        self.space.position.advance(step);
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // 2x + y + z = 7, 4x + y = 9, -2x + 2y + z = 2: x = 1.75, y = 2, z = 1.5
    #[test]
    fn elimination_solves_a_system_that_needs_pivoting() {
        let found =
            solve(vec![vec![2.0, 1.0, 1.0, 7.0], vec![4.0, 1.0, 0.0, 9.0], vec![-2.0, 2.0, 1.0, 2.0]]);
        for (found, wanted) in found.iter().zip([1.75, 2.0, 1.5]) {
            assert!((found - wanted).abs() < 1e-5, "{found} is not {wanted}");
        }
    }
}
