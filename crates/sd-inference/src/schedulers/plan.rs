//! A request and a model's configuration, joined and checked.

use super::betas::some_signal;
use super::spreads::{self, AlignedSteps, Spread};
use super::tables::{self, sigma_of, timestep_of, value_at};
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
    /// The published levels that `align_your_steps` goes by.
    pub(super) aligned: AlignedSteps,
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
            Sampler::Dpmpp2m | Sampler::Dpmpp2mSde | Sampler::UniPc | Sampler::Deis => {
                self.last_timestep().saturating_sub(1)
            }
            _ if self.schedule == Schedule::DdimUniform => self.train() - 1,
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
            (Sampler::Dpmpp2m | Sampler::Dpmpp2mSde, Some(least)) => {
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

    /// Levels of the samplers that begin at the highest level and visit the lowest one too (all but those of
    /// [`levels_multistep`](Self::levels_multistep)): other schedules run between the levels that the spacing selects,
    /// and their timesteps keep fractions.
    pub(super) fn levels(&self, final_sigmas: FinalSigmas) -> Levels {
        let training = self.training_sigmas();
        let spaced = tables::spaced(self.spacing, self.train(), self.steps, self.offset);
        // The reference of one sampler looks up its levels at the exact timesteps; a Brownian tree tells the difference.
        let exact = self.sampler == Sampler::DpmppSde;
        let spaced: Vec<f64> =
            spaced.into_iter().map(|t| if exact { t } else { f64::from(t as f32) }).collect();
        let sigmas: Vec<f64> = spaced.iter().map(|t| value_at(*t, &training)).collect();
        let (highest, lowest) = (sigmas[0], sigmas[sigmas.len() - 1]);
        let (mut timesteps, sigmas) =
            self.spread(lowest, highest).map_or((spaced, sigmas), |spread| spread.levels(&training));
        if self.schedule == Schedule::Karras && matches!(self.sampler, Sampler::Dpm2 | Sampler::Dpm2A) {
            timesteps.iter_mut().for_each(|t| *t = t.round_ties_even());
        }
        let timesteps = timesteps.into_iter().map(|t| f64::from(t as f32)).collect();
        let last = match final_sigmas {
            FinalSigmas::Zero => 0.0,
            FinalSigmas::SigmaMin => training[0],
        };
        Levels { timesteps, sigmas: ended(&sigmas, last) }
    }

    /// Levels of `dpmpp_2m`, `dpmpp_2m_sde`, `unipc` and `deis`: other schedules run between the levels of all training
    /// timesteps, and timesteps are whole.
    pub(super) fn levels_multistep(&self) -> Levels {
        let training = self.training_sigmas();
        let (lowest, highest) = (f64::from(training[0]), f64::from(training[training.len() - 1]));
        let (timesteps, sigmas) = match self.spread(lowest, highest) {
            None => {
                let timesteps =
                    tables::spaced_multistep(self.spacing, self.last_timestep(), self.steps, self.offset);
                let sigmas = timesteps.iter().map(|t| value_at(*t, &training)).collect();
                (timesteps, sigmas)
            }
            Some(spread) => {
                let (timesteps, sigmas) = spread.levels(&training);
                (timesteps.into_iter().map(|t| self.whole(t)).collect(), sigmas)
            }
        };
        let final_sigmas = match self.sampler {
            Sampler::Deis => FinalSigmas::SigmaMin,
            _ => self.final_sigmas,
        };
        // UniPC and DEIS end the reference's other schedules at their own lowest level, DPM-Solver at the model's.
        let own_end = matches!(self.sampler, Sampler::UniPc | Sampler::Deis)
            && matches!(self.schedule, Schedule::Karras | Schedule::Exponential | Schedule::Beta);
        let last = match (final_sigmas, sigmas.last()) {
            (FinalSigmas::Zero, _) => 0.0,
            (FinalSigmas::SigmaMin, Some(last)) if own_end => *last as f32,
            (FinalSigmas::SigmaMin, _) => training[0],
        };
        Levels { timesteps, sigmas: ended(&sigmas, last) }
    }

    /// A timestep of another schedule than normal as the multistep solvers of the reference make it whole.
    fn whole(&self, timestep: f64) -> f64 {
        let is_dpm = matches!(self.sampler, Sampler::Dpmpp2m | Sampler::Dpmpp2mSde);
        match self.schedule {
            Schedule::Exponential | Schedule::Beta => timestep.trunc(),
            Schedule::Karras if is_dpm && !self.rounds_timesteps => timestep.trunc(),
            _ => timestep.round_ties_even(),
        }
    }

    /// Another schedule than normal.
    fn spread(&self, lowest: f64, highest: f64) -> Option<Spread> {
        let (lowest, highest) = (self.sigma_min.unwrap_or(lowest), self.sigma_max.unwrap_or(highest));
        Some(match self.schedule {
            Schedule::Normal => return None,
            Schedule::Karras => Spread::Sigmas(tables::karras(lowest, highest, self.steps)),
            Schedule::Exponential => Spread::Sigmas(tables::exponential(lowest, highest, self.steps)),
            Schedule::Beta => Spread::Sigmas(spreads::beta(lowest, highest, self.steps)),
            Schedule::SgmUniform => Spread::Timesteps(spreads::sgm_uniform(self.train(), self.steps)),
            Schedule::Simple => Spread::Timesteps(spreads::simple(self.train(), self.steps)),
            Schedule::DdimUniform => Spread::Timesteps(spreads::ddim_uniform(self.train(), self.steps)),
            Schedule::AlignYourSteps => Spread::Sigmas(self.aligned.sigmas(self.steps)),
        })
    }

    /// The timesteps at which the training had these levels, with fractions (f32, as the reference passes them on).
    pub(super) fn timesteps_at(&self, sigmas: &[f32]) -> Vec<f64> {
        let logs: Vec<f32> = self.training_sigmas().iter().map(|sigma| sigma.ln()).collect();
        sigmas.iter().map(|sigma| f64::from(timestep_of(f64::from(*sigma), &logs) as f32)).collect()
    }
}

fn ended(sigmas: &[f64], last: f32) -> Vec<f32> {
    sigmas.iter().map(|sigma| *sigma as f32).chain([last]).collect()
}
