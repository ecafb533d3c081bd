//! Samplers: which noise levels a run visits, and how a sample moves from one to the next.
//!
//! A [`SchedulerConfig`] is what a model's `scheduler_config.json` says. [`SchedulerConfig::start`] joins it with what
//! a request chose and gives a [`Scheduler`], which holds the state of one generation and nothing of any other.
//! Tables and trajectories are those of the diffusers class of the same name (0.42.1), of two samplers those of
//! k-diffusion (0.1.1.post1). `docs/samplers.md` lists them.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use sd_inference::rng::{NoiseKind, NoiseSource};
//! use sd_inference::schedulers::{Sampler, SchedulerConfig, SchedulerOptions};
//!
//! let config = SchedulerConfig::from_json(r#"{
//!     "_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012,
//!     "beta_schedule": "scaled_linear", "steps_offset": 1, "timestep_spacing": "leading"
//! }"#)?;
//! let options = SchedulerOptions { sampler: Some(Sampler::Dpmpp2m), ..SchedulerOptions::new(4) };
//! let mut scheduler = config.start(&options)?;
//!
//! let mut noise = NoiseKind::TorchCpu.source(42);
//! let mut sample = (noise.randn(&[1, 4, 8, 8], &Device::Cpu)? * scheduler.init_noise_sigma())?;
//! for step in 0..scheduler.steps() {
//!     let input = scheduler.scale_model_input(&sample, step)?;
//!     let _timestep = scheduler.timesteps()[step];
//!     let model_output = input.zeros_like()?; // the UNet's answer
//!     sample = scheduler.step(&model_output, step, &sample, &mut noise)?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod alphas;
mod betas;
mod check;
mod config;
mod consistency;
mod ddim;
mod ddpm;
mod defaults;
mod deis;
mod dpm2;
mod dpm_multistep;
mod dpmpp_3m_sde;
mod dpmpp_single;
mod error;
mod euler;
mod heun;
mod lms;
mod names;
mod options;
mod path_noise;
mod plan;
mod pndm;
mod prediction;
mod sigma_space;
mod space;
mod spreads;
mod tables;
mod two_stage;
mod unipc;

use candle_core::Tensor;

pub use config::SchedulerConfig;
pub use error::SchedulerError;
pub use names::{BetaSchedule, FinalSigmas, PredictionType, Sampler, Schedule, TimestepSpacing};
pub use options::SchedulerOptions;
pub use space::Space;

use crate::rng::NoiseSource;

/// Results of this module.
pub type Result<T> = std::result::Result<T, SchedulerError>;

/// One run of one sampler.
///
/// Samples, model outputs and noise are f32 tensors of one shape, batch first, on any device. Steps count from 0;
/// image-to-image starts at a later one. Once begun, steps must follow one another, because multistep samplers
/// remember: anything else is [`SchedulerError::StepOrder`].
pub trait Scheduler: Send {
    /// The sampler that this is.
    fn sampler(&self) -> Sampler;

    /// The run's levels, and how its samples stand at them.
    fn space(&self) -> &dyn Space;

    /// Moves the sample from the noise level of `step` to the next. `model_output` is the UNet's answer after
    /// guidance. Whatever fresh noise the sampler wants is drawn from `noise`, in the reference's order.
    fn step(
        &mut self,
        model_output: &Tensor,
        step: usize,
        sample: &Tensor,
        noise: &mut dyn NoiseSource,
    ) -> Result<Tensor>;

    /// What the UNet's answer means.
    fn prediction(&self) -> PredictionType {
        self.space().prediction()
    }

    /// The training timestep that the UNet is given each time it is asked, highest first. Fractions are possible.
    ///
    /// Some samplers ask more often than a request has steps: `pndm` once more, others twice in each step but the last
    /// ([`Sampler::evaluations`]). What this trait calls a step is one such evaluation.
    fn timesteps(&self) -> &[f64] {
        self.space().timesteps()
    }

    /// The noise level of what the UNet sees at each step, and the level after the last, as the ratio of noise to
    /// signal: one more than there are timesteps. Always finite: a level without any signal (zero terminal SNR) counts as 4096.
    fn sigmas(&self) -> &[f32] {
        self.space().sigmas()
    }

    /// What standard normal noise is multiplied by to be the first sample.
    fn init_noise_sigma(&self) -> f64 {
        self.space().init_noise_sigma()
    }

    /// The sample as the UNet wants to see it at this step.
    fn scale_model_input(&self, sample: &Tensor, step: usize) -> Result<Tensor> {
        self.space().scale_model_input(sample, step)
    }

    /// A clean sample brought to the noise level of `step`, where a run that starts there begins.
    fn add_noise(&self, original: &Tensor, noise: &Tensor, step: usize) -> Result<Tensor> {
        self.space().add_noise(original, noise, step)
    }

    /// The clean sample that the UNet's answer at `step` means. `input` is what [`scale_model_input`] made of the sample.
    ///
    /// [`scale_model_input`]: Self::scale_model_input
    fn clean_sample(&self, model_output: &Tensor, step: usize, input: &Tensor) -> Result<Tensor> {
        // What the UNet sees is variance preserving, whatever the sampler keeps.
        let level = prediction::alpha_sigma(self.sigmas()[step]);
        prediction::clean_sample(self.prediction(), model_output, input, level)
    }

    /// The number of evaluations of the UNet.
    fn steps(&self) -> usize {
        self.timesteps().len()
    }

    /// Where a run begins that leaves out so many of the steps that were asked for, as the reference's image-to-image
    /// counts them.
    fn step_after(&self, left_out: usize) -> usize {
        left_out.saturating_mul(self.sampler().evaluations()).min(self.steps())
    }
}

/// Sees to it that steps follow one another.
#[derive(Clone, Debug)]
struct Position {
    steps: usize,
    next: Option<usize>,
}

impl Position {
    fn new(steps: usize) -> Self {
        Self { steps, next: None }
    }

    /// Is there such a step?
    fn check(&self, step: usize) -> Result<()> {
        let expected = self.next.unwrap_or(0);
        if step < self.steps {
            Ok(())
        } else {
            Err(SchedulerError::StepOrder { step, expected, steps: self.steps })
        }
    }

    /// Is it this step's turn?
    fn check_turn(&self, step: usize) -> Result<()> {
        self.check(step)?;
        match self.next {
            Some(expected) if expected != step => {
                Err(SchedulerError::StepOrder { step, expected, steps: self.steps })
            }
            _ => Ok(()),
        }
    }

    /// The step is done.
    fn advance(&mut self, step: usize) {
        self.next = Some(step + 1);
    }
}
