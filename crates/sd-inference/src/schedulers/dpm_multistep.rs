//! DPM-Solver++, multistep.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::defaults::DPM_MULTISTEP;
use super::plan::Plan;
use super::prediction::{Thresholding, alpha_sigma, clean_sample, lambda, scaled};
use super::space::{PreservingSpace, Space};
use super::{FinalSigmas, Result, Sampler, Scheduler, SchedulerConfig, SchedulerError, SchedulerOptions};
use crate::rng::NoiseSource;

/// Below this many steps the last ones are of lower order.
const FEW_STEPS: usize = 15;

/// diffusers' `DPMSolverMultistepScheduler` with `dpmsolver++` or `sde-dpmsolver++` (Lu et al. 2022).
///
/// A request that names `dpmpp_2m` or `dpmpp_2m_sde` gets the solver of second order whatever the model's configuration
/// says; a model whose own class it is gets the algorithm and order that it asks for.
pub(super) struct DpmMultistep {
    space: PreservingSpace,
    thresholding: Option<Thresholding>,
    stochastic: bool,
    heun: bool,
    order: usize,
    lower_order_final: bool,
    first_order_last: bool,
    /// Clean samples of the last steps, newest first.
    clean: VecDeque<Tensor>,
}

impl DpmMultistep {
    pub(super) fn new(config: &SchedulerConfig, options: &SchedulerOptions, plan: &Plan) -> Result<Self> {
        let own = config.class_name.as_deref() == Some(DPM_MULTISTEP) && options.sampler.is_none();
        if own {
            check_algorithm(config)?;
        }
        if let Some(variance @ ("learned" | "learned_range")) = config.variance_type.as_deref() {
            return Err(SchedulerError::Unsupported {
                field: "variance_type",
                value: variance.to_owned(),
                hint: "only models that predict no variance are",
            });
        }
        let order = if own { config.solver_order.unwrap_or(2) } else { 2 };
        let stochastic = plan.sampler == Sampler::Dpmpp2mSde;
        // The reference's third order for the SDE has a weight that does not vanish with the step.
        let (limit, in_words) = if stochastic { (2, "1 or 2 with sde-dpmsolver++") } else { (3, "1 to 3") };
        if !(1..=limit).contains(&order) {
            return Err(SchedulerError::OutOfRange {
                field: "solver_order",
                value: order.to_string(),
                limit: in_words,
            });
        }
        let lower_order_final = config.lower_order_final.unwrap_or(true);
        Ok(Self {
            space: PreservingSpace::of_levels(plan.levels_multistep(), plan.prediction),
            thresholding: Thresholding::of(config),
            stochastic,
            heun: is_heun(config)?,
            order,
            lower_order_final: lower_order_final && plan.steps < FEW_STEPS,
            first_order_last: config.euler_at_final.unwrap_or(false)
                || lower_order_final && plan.steps < FEW_STEPS
                || plan.final_sigmas == FinalSigmas::Zero,
            clean: VecDeque::new(),
        })
    }

    /// The order of this step: what is remembered limits it, and so does the end of the run.
    fn order_of(&self, step: usize) -> usize {
        let left = self.space.position.steps - 1 - step;
        let limit = match left {
            0 if self.first_order_last => 1,
            1 if self.lower_order_final => 2,
            _ => self.order,
        };
        limit.min(self.clean.len())
    }

    /// Factors of the sample, of the clean samples (newest first) and of the noise.
    ///
    /// With `s` the level of a step, `t` the next and `h` the distance of their lambdas, the exact solution is
    /// `sigma_t / sigma_s * x + alpha_t * (1 - e^-h) * clean` plus terms in the differences of clean samples.
    fn factors(&self, step: usize, order: usize) -> (f32, Vec<f32>, f32) {
        let sigmas = &self.space.levels.sigmas;
        let (alpha_t, sigma_t) = alpha_sigma(sigmas[step + 1]);
        let (_, sigma_s) = alpha_sigma(sigmas[step]);
        let lambda_s = lambda(sigmas[step]);
        let h = lambda(sigmas[step + 1]) - lambda_s;
        // the stochastic solver loses signal twice as fast and makes up for it with noise
        let rate = if self.stochastic { 2.0 * h } else { h };
        let gone = 1.0 - (-rate).exp();

        let sample = if self.stochastic { sigma_t / sigma_s * (-h).exp() } else { sigma_t / sigma_s };
        let noise = if self.stochastic { sigma_t * gone.sqrt() } else { 0.0 };
        let d0 = alpha_t * gone;
        // weights of the first and second divided difference
        let d1 = if order == 2 && !self.heun { 0.5 * d0 } else { alpha_t * (1.0 - gone / rate) };
        let d2 = alpha_t * ((rate - gone) / (rate * rate) - 0.5);
        let clean = match order {
            1 => vec![d0],
            2 => {
                let r0 = (lambda_s - lambda(sigmas[step - 1])) / h;
                vec![d0 + d1 / r0, -d1 / r0]
            }
            _ => {
                let r0 = (lambda_s - lambda(sigmas[step - 1])) / h;
                let r1 = (lambda(sigmas[step - 1]) - lambda(sigmas[step - 2])) / h;
                // D1 = a + r0 / (r0 + r1) * (a - b), D2 = (a - b) / (r0 + r1), a and b the slopes
                let slope = r0 / (r0 + r1);
                let a = d1 * (1.0 + slope) - d2 / (r0 + r1);
                let b = -d1 * slope + d2 / (r0 + r1);
                vec![d0 + a / r0, -a / r0 + b / r1, -b / r1]
            }
        };
        (sample, clean, noise)
    }
}

/// Whether the algorithm that the model's own class asks for is implemented.
fn check_algorithm(config: &SchedulerConfig) -> Result<()> {
    match config.algorithm_type.as_deref() {
        None | Some("dpmsolver++" | "deis" | "sde-dpmsolver++") => Ok(()),
        Some(other @ ("dpmsolver" | "sde-dpmsolver")) => Err(SchedulerError::Unsupported {
            field: "algorithm_type",
            value: other.to_owned(),
            hint: "dpmsolver++ and sde-dpmsolver++ are; choosing the sampler dpmpp_2m uses the first",
        }),
        Some(other) => Err(SchedulerError::UnknownName {
            field: "algorithm_type",
            value: other.to_owned(),
            allowed: "dpmsolver++, sde-dpmsolver++".to_owned(),
        }),
    }
}

fn is_heun(config: &SchedulerConfig) -> Result<bool> {
    match config.solver_type.as_deref() {
        // names of other solvers' types mean the default, as in the reference
        None | Some("midpoint" | "logrho" | "bh1" | "bh2") => Ok(false),
        Some("heun") => Ok(true),
        Some(other) => Err(SchedulerError::UnknownName {
            field: "solver_type",
            value: other.to_owned(),
            allowed: "midpoint, heun".to_owned(),
        }),
    }
}

impl Scheduler for DpmMultistep {
    fn sampler(&self) -> Sampler {
        if self.stochastic { Sampler::Dpmpp2mSde } else { Sampler::Dpmpp2m }
    }

    fn space(&self) -> &dyn Space {
        &self.space
    }

    /// Noise is drawn at every step of the stochastic solver, and else never.
    fn step(
        &mut self,
        model_output: &Tensor,
        step: usize,
        sample: &Tensor,
        noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        self.space.position.check_turn(step)?;
        let level = alpha_sigma(self.space.levels.sigmas[step]);
        let mut clean = clean_sample(self.space.prediction, model_output, sample, level)?;
        if let Some(thresholding) = &self.thresholding {
            clean = thresholding.apply(&clean)?;
        }
        self.clean.push_front(clean);
        self.clean.truncate(self.order);

        let (of_sample, of_clean, of_noise) = self.factors(step, self.order_of(step));
        let mut next = scaled(sample, of_sample)?;
        for (factor, clean) in of_clean.into_iter().zip(&self.clean) {
            next = (next + scaled(clean, factor)?)?;
        }
        if self.stochastic {
            let fresh = noise.randn(sample.dims(), sample.device())?;
            next = (next + scaled(&fresh, of_noise)?)?;
        }
        self.space.position.advance(step);
        Ok(next)
    }
}
