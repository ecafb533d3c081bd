//! A request and a model's configuration, joined and checked.

use super::betas::some_signal;
use super::tables::{self, sigma_at, sigma_of, timestep_of};
use super::{FinalSigmas, PredictionType, Result, Sampler, Schedule, SchedulerError, TimestepSpacing};

/// Everything that the tables of a run depend on.
pub(super) struct Plan {
    pub(super) sampler: Sampler,
    pub(super) steps: usize,
    pub(super) schedule: Schedule,
    pub(super) spacing: TimestepSpacing,
    pub(super) prediction: PredictionType,
    /// `steps_offset`.
    pub(super) offset: usize,
    pub(super) final_sigmas: FinalSigmas,
    /// Whether Karras timesteps of `dpmpp_2m` are whole.
    pub(super) rounds_timesteps: bool,
    pub(super) sigma_min: Option<f64>,
    pub(super) sigma_max: Option<f64>,
    /// `lambda_min_clipped`.
    pub(super) lambda_min: Option<f64>,
    pub(super) eta: f64,
    /// Whether the sampler is the model's choice and not the request's.
    pub(super) own_defaults: bool,
    pub(super) alphas_cumprod: Vec<f32>,
}

/// The levels of a run: where the UNet is asked, and how noisy the sample is before each step and after the last.
#[derive(Clone, Debug)]
pub(super) struct Levels {
    pub(super) timesteps: Vec<f64>,
    pub(super) sigmas: Vec<f32>,
}

impl Plan {
    pub(super) fn train(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// Multistep solvers lay out one timestep more than there are steps, and none may occur twice.
    pub(super) fn check_steps(&self) -> Result<()> {
        let limit = match self.sampler {
            Sampler::Dpmpp2m | Sampler::UniPc => self.last_timestep().saturating_sub(1),
            _ => self.train(),
        };
        if (1..=limit).contains(&self.steps) {
            return Ok(());
        }
        Err(SchedulerError::Steps { steps: self.steps, limit, sampler: self.sampler })
    }

    /// How many training timesteps are in use.
    fn last_timestep(&self) -> usize {
        match (self.sampler, self.lambda_min) {
            (Sampler::Dpmpp2m, Some(least)) => {
                // lambda falls with the timestep, so the noisiest are the ones below the limit
                let alphas = self.alphas_cumprod.iter();
                let lambdas = alphas.map(|alpha| alpha.sqrt().ln() - (1.0 - alpha).sqrt().ln());
                lambdas.take_while(|lambda| f64::from(*lambda) >= least).count()
            }
            _ => self.train(),
        }
    }

    /// Noise levels of the training timesteps, rising. Without any signal left the level would be infinite.
    fn training_sigmas(&self) -> Vec<f32> {
        self.alphas_cumprod.iter().map(|alpha| sigma_of(some_signal(*alpha))).collect()
    }

    /// Levels of `euler`, `euler_a` and the spread ones of `ddim`: other schedules run between the levels that the
    /// spacing selects, and their timesteps keep fractions.
    pub(super) fn levels(&self, final_sigmas: FinalSigmas) -> Levels {
        let training = self.training_sigmas();
        let spaced = tables::spaced(self.spacing, self.train(), self.steps, self.offset);
        let spaced: Vec<f64> = spaced.into_iter().map(|t| f64::from(t as f32)).collect();
        let sigmas: Vec<f64> = spaced.iter().map(|t| sigma_at(*t, &training)).collect();
        let (highest, lowest) = (sigmas[0], sigmas[sigmas.len() - 1]);
        let (timesteps, sigmas) = match self.respread(lowest, highest) {
            None => (spaced, sigmas),
            Some(sigmas) => (self.timesteps_of(&sigmas, &training), sigmas),
        };
        let timesteps = timesteps.into_iter().map(|t| f64::from(t as f32)).collect();
        let last = match final_sigmas {
            FinalSigmas::Zero => 0.0,
            FinalSigmas::SigmaMin => training[0],
        };
        Levels { timesteps, sigmas: ended(&sigmas, last) }
    }

    /// Levels of `dpmpp_2m` and `unipc`: other schedules run between the levels of all training timesteps, and
    /// timesteps are whole.
    pub(super) fn levels_multistep(&self) -> Levels {
        let training = self.training_sigmas();
        let (lowest, highest) = (f64::from(training[0]), f64::from(training[training.len() - 1]));
        let respread = self.respread(lowest, highest);
        // UniPC ends another schedule at that schedule's lowest level, DPM-Solver at the model's.
        let mut sigma_min = training[0];
        let (timesteps, sigmas) = match respread {
            None => {
                let timesteps =
                    tables::spaced_multistep(self.spacing, self.last_timestep(), self.steps, self.offset);
                let sigmas = timesteps.iter().map(|t| sigma_at(*t, &training)).collect();
                (timesteps, sigmas)
            }
            Some(sigmas) => {
                let rounds = self.schedule == Schedule::Karras
                    && (self.rounds_timesteps || self.sampler == Sampler::UniPc);
                let whole = |t: f64| if rounds { t.round_ties_even() } else { t.trunc() };
                let timesteps = self.timesteps_of(&sigmas, &training).into_iter().map(whole).collect();
                if self.sampler == Sampler::UniPc {
                    sigma_min = sigmas[sigmas.len() - 1] as f32;
                }
                (timesteps, sigmas)
            }
        };
        let last = match self.final_sigmas {
            FinalSigmas::Zero => 0.0,
            FinalSigmas::SigmaMin => sigma_min,
        };
        Levels { timesteps, sigmas: ended(&sigmas, last) }
    }

    /// The levels of another schedule than normal.
    fn respread(&self, lowest: f64, highest: f64) -> Option<Vec<f64>> {
        let (lowest, highest) = (self.sigma_min.unwrap_or(lowest), self.sigma_max.unwrap_or(highest));
        match self.schedule {
            Schedule::Normal => None,
            Schedule::Karras => Some(tables::karras(lowest, highest, self.steps)),
            Schedule::Exponential => Some(tables::exponential(lowest, highest, self.steps)),
        }
    }

    fn timesteps_of(&self, sigmas: &[f64], training: &[f32]) -> Vec<f64> {
        let logs: Vec<f32> = training.iter().map(|sigma| sigma.ln()).collect();
        sigmas.iter().map(|sigma| timestep_of(*sigma, &logs)).collect()
    }
}

fn ended(sigmas: &[f64], last: f32) -> Vec<f32> {
    sigmas.iter().map(|sigma| *sigma as f32).chain([last]).collect()
}
