//! DPM-Solver++ for the reverse SDE, multistep of third order.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::path_noise::PathNoise;
use super::plan::Plan;
use super::prediction::{divided, scaled};
use super::sigma_space::SigmaSpace;
use super::space::Space;
use super::{FinalSigmas, Result, Sampler, Scheduler};
use crate::rng::NoiseSource;

/// How many clean samples count.
const ORDER: usize = 3;

/// k-diffusion's `sample_dpmpp_3m_sde`, with a Brownian path of the image's seed; from a source that tells no seeds plain
/// normals, one draw in each step but the last.
pub(super) struct Dpmpp3mSde {
    space: SigmaSpace,
    eta: f32,
    path: PathNoise,
    /// Clean samples of the last steps, newest first.
    clean: VecDeque<Tensor>,
}

impl Dpmpp3mSde {
    pub(super) fn new(plan: &Plan) -> Self {
        let space = SigmaSpace::new(plan, FinalSigmas::Zero);
        let path = PathNoise::new(&space.levels.sigmas);
        Self { space, eta: plan.eta as f32, path, clean: VecDeque::new() }
    }

    /// The step's length in the logarithm of sigma.
    fn length(&self, step: usize) -> f32 {
        let sigmas = &self.space.levels.sigmas;
        sigmas[step].ln() - sigmas[step + 1].ln()
    }

    /// What the changes of the clean sample add to the step after `step`, whose loss of noise is `rate`.
    fn corrections(&self, step: usize, rate: f32) -> Result<Option<Tensor>> {
        let h = self.length(step);
        let phi_2 = f64::from(-rate).exp_m1() as f32 / rate + 1.0;
        let phi_3 = phi_2 / rate - 0.5;
        let slope = |back: usize, length: f32| divided(&(&self.clean[back] - &self.clean[back + 1])?, length);
        match self.clean.len() {
            0 | 1 => Ok(None),
            2 => Ok(Some(scaled(&slope(0, self.length(step - 1) / h)?, phi_2)?)),
            _ => {
                let (r0, r1) = (self.length(step - 1) / h, self.length(step - 2) / h);
                let (near, far) = (slope(0, r0)?, slope(1, r1)?);
                let change = (&near - &far)?;
                let first = (near + divided(&scaled(&change, r0)?, r0 + r1)?)?;
                let second = divided(&change, r0 + r1)?;
                Ok(Some((scaled(&first, phi_2)? - scaled(&second, phi_3)?)?))
            }
        }
    }
}

impl Scheduler for Dpmpp3mSde {
    fn sampler(&self) -> Sampler {
        Sampler::Dpmpp3mSde
    }

    fn space(&self) -> &dyn Space {
        &self.space
    }

    /// Noise is drawn at every step but the last if eta is above 0, and else never.
    fn step(
        &mut self,
        model_output: &Tensor,
        step: usize,
        sample: &Tensor,
        noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        self.space.position.check_turn(step)?;
        let clean = self.space.clean(model_output, step, sample)?;
        let to = self.space.levels.sigmas[step + 1];
        if to == 0.0 {
            self.space.position.advance(step);
            return Ok(clean);
        }
        let h = self.length(step);
        let rate = h * (self.eta + 1.0);
        let gone = -f64::from(-rate).exp_m1() as f32;
        let mut next = (scaled(sample, (-rate).exp())? + scaled(&clean, gone)?)?;
        self.clean.push_front(clean);
        self.clean.truncate(ORDER);
        if let Some(corrections) = self.corrections(step, rate)? {
            next = (next + corrections)?;
        }
        if self.eta > 0.0 {
            let deviation = to * (-f64::from(-2.0 * h * self.eta).exp_m1()).sqrt() as f32;
            let from = self.space.levels.sigmas[step];
            let fresh = self.path.between(from, to, sample.dims(), sample.device(), noise)?;
            next = (next + scaled(&fresh, deviation)?)?;
        }
        self.space.position.advance(step);
        Ok(next)
    }
}
