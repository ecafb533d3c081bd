//! What a model says about its schedule, and the way from there to a run.

use serde::Deserialize;

use super::consistency::{Lcm, Tcd};
use super::ddim::Ddim;
use super::ddpm::Ddpm;
use super::deis::Deis;
use super::dpm_multistep::DpmMultistep;
use super::dpm2::{Dpm2, Dpm2Ancestral};
use super::dpmpp_3m_sde::Dpmpp3mSde;
use super::dpmpp_single::{Dpmpp2sAncestral, DpmppSde};
use super::euler::{Euler, EulerAncestral};
use super::heun::Heun;
use super::lms::Lms;
use super::plan::Plan;
use super::pndm::Pndm;
use super::prediction::Clip;
use super::spreads::AlignedSteps;
use super::two_stage::TwoStage;
use super::unipc::UniPc;
use super::{
    BetaSchedule, FinalSigmas, PredictionType, Result, Sampler, Schedule, Scheduler, SchedulerError,
    SchedulerOptions, TimestepSpacing,
};

/// A `scheduler_config.json` as diffusers writes it, for any of its classes.
///
/// A field that is missing or null has the default of the diffusers class that the sampler corresponds to; a field
/// that is not listed here is ignored. [`check`](Self::check) tells whether samplers can run with it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SchedulerConfig {
    /// The diffusers class.
    #[serde(rename = "_class_name")]
    pub class_name: Option<String>,
    /// Timesteps that the model was trained on (1000).
    pub num_train_timesteps: Option<usize>,
    /// The first beta (0.0001).
    pub beta_start: Option<f64>,
    /// The last beta (0.02).
    pub beta_end: Option<f64>,
    /// A [`BetaSchedule`] (`linear`).
    pub beta_schedule: Option<String>,
    /// Every beta, instead of the three fields before.
    pub trained_betas: Option<Vec<f32>>,
    /// Whether betas are rescaled so that the last timestep is pure noise (no).
    pub rescale_betas_zero_snr: Option<bool>,
    /// A [`PredictionType`] (`epsilon`).
    pub prediction_type: Option<String>,
    /// A [`TimestepSpacing`] (`leading` for `ddim`, `ddpm` and `pndm`, `linspace` for the others).
    pub timestep_spacing: Option<String>,
    /// Added to every timestep of leading spacing (0).
    pub steps_offset: Option<usize>,
    /// A [`FinalSigmas`] (`zero`); `euler`, `dpmpp_2m` and `unipc`.
    pub final_sigmas_type: Option<String>,
    /// [`Schedule::Karras`]; for all samplers whose class in diffusers has it.
    pub use_karras_sigmas: Option<bool>,
    /// [`Schedule::Exponential`], likewise.
    pub use_exponential_sigmas: Option<bool>,
    /// [`Schedule::Beta`], likewise.
    pub use_beta_sigmas: Option<bool>,
    /// Not supported yet.
    pub use_lu_lambdas: Option<bool>,
    /// Not supported yet: flow matching.
    pub use_flow_sigmas: Option<bool>,
    /// The lowest level of other schedules than normal.
    pub sigma_min: Option<f64>,
    /// The highest level of other schedules than normal.
    pub sigma_max: Option<f64>,
    /// `discrete`; `continuous` timesteps are not supported yet (`euler`).
    pub timestep_type: Option<String>,
    /// `linear`; `log_linear` is not supported yet (`euler`).
    pub interpolation_type: Option<String>,
    /// Whether the clean sample is clipped (yes for `ddim` and `ddpm`, no for `heun` and `lcm`).
    pub clip_sample: Option<bool>,
    /// Where it is clipped (1).
    pub clip_sample_range: Option<f64>,
    /// Whether the last step ends at the clean sample (yes for `ddim`, no for `pndm`) or at the first training timestep.
    pub set_alpha_to_one: Option<bool>,
    /// Dynamic thresholding of the clean sample (no); `ddim`, `dpmpp_2m` and `unipc`.
    pub thresholding: Option<bool>,
    /// The quantile of dynamic thresholding (0.995).
    pub dynamic_thresholding_ratio: Option<f64>,
    /// The largest threshold (1).
    pub sample_max_value: Option<f64>,
    /// `dpmsolver++` or `sde-dpmsolver++` (the first); DPMSolverMultistepScheduler.
    pub algorithm_type: Option<String>,
    /// The order of the solver (2); `unipc`, `deis`, and `dpmpp_2m` as the model's own class.
    pub solver_order: Option<usize>,
    /// `midpoint` or `heun` for `dpmpp_2m`, `bh1` or `bh2` for `unipc` (the first and the last).
    pub solver_type: Option<String>,
    /// Whether the order falls towards the end (yes); `dpmpp_2m` and `deis` below 15 steps, `unipc` always.
    pub lower_order_final: Option<bool>,
    /// Whether the last step is of first order (no); `dpmpp_2m`.
    pub euler_at_final: Option<bool>,
    /// Timesteps above the one with this half log-SNR are not used (none are left out); `dpmpp_2m`.
    pub lambda_min_clipped: Option<f64>,
    /// Which fixed variance (`fixed_small`) for `ddpm`. Models that predict one as well are not supported; `ddpm`, `dpmpp_2m`.
    pub variance_type: Option<String>,
    /// Whether the solver works on the clean sample (yes); the other form is not supported; `unipc`.
    pub predict_x0: Option<bool>,
    /// Steps after which the corrector is left out (none); `unipc`.
    pub disable_corrector: Option<Vec<usize>>,
    /// Whether the Runge-Kutta steps that begin a run are left out (no); `pndm` always leaves them out.
    pub skip_prk_steps: Option<bool>,
    /// Steps of the solver that the model was distilled from (50); `lcm` and `tcd`.
    pub original_inference_steps: Option<usize>,
    /// What timesteps are multiplied by in the boundary condition (10); `lcm`.
    pub timestep_scaling: Option<f64>,
    #[serde(skip)]
    pub(super) aligned: AlignedSteps,
}

impl SchedulerConfig {
    /// Reads the text of a `scheduler_config.json`, also one with the bare `-Infinity` that Python writes.
    pub fn from_json(text: &str) -> Result<Self> {
        Ok(sd_models::json::from_slice(without_bare_infinities(text).as_bytes())?)
    }

    /// What the reference's `StableDiffusionPipeline` (SD 1.x and 2.x, not SDXL) does to a loaded scheduler: leading
    /// timesteps are offset by 1, and latents are never clipped.
    #[must_use]
    pub fn with_stable_diffusion_fixes(mut self) -> Self {
        self.steps_offset = Some(1);
        self.clip_sample = Some(false);
        self
    }

    /// What SDXL has of its own: `align_your_steps` takes its published levels.
    #[must_use]
    pub fn for_sdxl(mut self) -> Self {
        self.aligned = AlignedSteps::Sdxl;
        self
    }

    /// A run as `options` and this configuration say: the state of one generation.
    ///
    /// # Errors
    /// A number of steps that the sampler cannot do, an option out of range, a name or a setting in the configuration
    /// that is unknown or not supported. All of it is known before the first step.
    pub fn start(&self, options: &SchedulerOptions) -> Result<Box<dyn Scheduler>> {
        let plan = self.plan(options)?;
        Ok(match plan.sampler {
            Sampler::Euler => Box::new(Euler::new(self, &plan)?),
            Sampler::EulerA => Box::new(EulerAncestral::new(&plan)),
            Sampler::Ddim => Box::new(Ddim::new(self, &plan)),
            Sampler::Ddpm => Box::new(Ddpm::new(self, &plan)?),
            Sampler::Pndm => Box::new(Pndm::new(self, &plan)),
            Sampler::Dpmpp2m | Sampler::Dpmpp2mSde => Box::new(DpmMultistep::new(self, options, &plan)?),
            Sampler::UniPc => Box::new(UniPc::new(self, &plan)?),
            Sampler::Deis => Box::new(Deis::new(self, &plan)?),
            Sampler::Heun => {
                let clip = match self.clip_sample {
                    Some(true) => Clip::At(self.clip_sample_range.unwrap_or(1.0)),
                    _ => Clip::Never,
                };
                Box::new(TwoStage::new(Heun, &plan, clip))
            }
            Sampler::Dpm2 => Box::new(TwoStage::new(Dpm2, &plan, Clip::Never)),
            Sampler::Dpm2A => Box::new(TwoStage::new(Dpm2Ancestral, &plan, Clip::Never)),
            Sampler::DpmppSde => Box::new(TwoStage::new(DpmppSde::new(&plan), &plan, Clip::Never)),
            Sampler::Dpmpp2sA => {
                Box::new(TwoStage::new(Dpmpp2sAncestral { eta: plan.eta as f32 }, &plan, Clip::Never))
            }
            Sampler::Dpmpp3mSde => Box::new(Dpmpp3mSde::new(&plan)),
            Sampler::Lms => Box::new(Lms::new(&plan)),
            Sampler::Lcm => Box::new(Lcm::new(self, &plan)),
            Sampler::Tcd => Box::new(Tcd::new(self, &plan)),
        })
    }

    /// The share of signal in the squared sample at each training timestep, f32 as in torch.
    pub fn alphas_cumprod(&self) -> Result<Vec<f32>> {
        self.beta_source()?.alphas_cumprod()
    }

    /// How many timesteps the model was trained on, as the reference's pipelines read it.
    pub(crate) fn train_timesteps(&self) -> usize {
        self.num_train_timesteps.unwrap_or(1000)
    }

    fn plan(&self, options: &SchedulerOptions) -> Result<Plan> {
        let sampler = match options.sampler {
            Some(sampler) => sampler,
            None => self.default_sampler()?.0,
        };
        self.refuse_flow()?;
        self.check_levels()?;
        let alphas_cumprod = self.alphas_cumprod()?;
        let default_spacing = match sampler {
            Sampler::Ddim | Sampler::Ddpm | Sampler::Pndm => TimestepSpacing::Leading,
            _ => TimestepSpacing::Linspace,
        };
        let plan = Plan {
            sampler,
            steps: options.steps,
            schedule: self.schedule(sampler, options)?,
            spacing: match options.spacing {
                Some(spacing) => spacing,
                None => parsed(&self.timestep_spacing, default_spacing)?,
            },
            prediction: parsed(&self.prediction_type, PredictionType::Epsilon)?,
            offset: self.steps_offset.unwrap_or(0),
            final_sigmas: parsed(&self.final_sigmas_type, FinalSigmas::Zero)?,
            rounds_timesteps: self.beta_schedule.as_deref() != Some(BetaSchedule::SquaredCosCapV2.name()),
            sigma_min: self.sigma_min,
            sigma_max: self.sigma_max,
            lambda_min: self.lambda_min_clipped,
            eta: eta(sampler, options.eta)?,
            aligned: self.aligned,
            alphas_cumprod,
        };
        plan.check_steps()?;
        Ok(plan)
    }

    /// The schedule that this configuration gives `sampler` when a request chooses none.
    ///
    /// # Errors
    /// [`SchedulerError::Unsupported`] when the configuration names one that is not implemented.
    pub fn default_schedule(&self, sampler: Sampler) -> Result<Schedule> {
        self.schedule(sampler, &SchedulerOptions::new(1))
    }

    fn schedule(&self, sampler: Sampler, options: &SchedulerOptions) -> Result<Schedule> {
        // diffusers' classes of these have no other schedule, so their configurations mean none.
        let normal_only =
            [Sampler::EulerA, Sampler::Ddim, Sampler::Ddpm, Sampler::Pndm, Sampler::Lcm, Sampler::Tcd];
        if let Some(schedule) = options.schedule {
            return Ok(schedule);
        }
        if normal_only.contains(&sampler) {
            return Ok(Schedule::Normal);
        }
        let unsupported =
            |field, hint| Err(SchedulerError::Unsupported { field, value: "true".to_owned(), hint });
        if self.use_lu_lambdas == Some(true) {
            return unsupported("use_lu_lambdas", "choose a schedule for it");
        }
        let flags = [
            (self.use_karras_sigmas, "use_karras_sigmas", Schedule::Karras),
            (self.use_exponential_sigmas, "use_exponential_sigmas", Schedule::Exponential),
            (self.use_beta_sigmas, "use_beta_sigmas", Schedule::Beta),
        ];
        let mut set = flags.into_iter().filter(|(flag, _, _)| *flag == Some(true));
        match (set.next(), set.next()) {
            (None, _) => Ok(Schedule::Normal),
            (Some((_, _, schedule)), None) => Ok(schedule),
            (Some(_), Some((_, field, _))) => {
                unsupported(field, "beside another schedule's flag; choose one")
            }
        }
    }
}

/// How much fresh noise: as the request says, or as the reference's pipelines or functions do it unasked.
fn eta(sampler: Sampler, wanted: Option<f64>) -> Result<f64> {
    let default = match sampler {
        Sampler::Dpmpp2sA | Sampler::Dpmpp3mSde => 1.0,
        _ => 0.0,
    };
    match wanted {
        None => Ok(default),
        Some(_) if !sampler.takes_eta() => Err(SchedulerError::NoEta { sampler }),
        Some(eta) if (0.0..=1.0).contains(&eta) => Ok(eta),
        Some(eta) => {
            Err(SchedulerError::OutOfRange { field: "eta", value: eta.to_string(), limit: "0 to 1" })
        }
    }
}

/// A name of the configuration, or what its absence means.
pub(super) fn parsed<T: std::str::FromStr<Err = SchedulerError>>(
    name: &Option<String>,
    default: T,
) -> Result<T> {
    name.as_deref().map_or(Ok(default), str::parse)
}

/// Python's `json` writes `-Infinity`, `Infinity` and `NaN` bare, which is no JSON; here they become null, the
/// default. Strings are left alone.
fn without_bare_infinities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let (mut quoted, mut escaped) = (false, false);
    while let Some(c) = rest.chars().next() {
        let bare =
            ["-Infinity", "Infinity", "NaN"].into_iter().find(|word| !quoted && rest.starts_with(word));
        if let Some(word) = bare {
            out.push_str("null");
            rest = &rest[word.len()..];
            continue;
        }
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && c == '\\' && !escaped;
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_infinity_is_the_default_and_unknown_fields_are_ignored() {
        let config = SchedulerConfig::from_json(
            r#"{"_class_name": "X -Infinity \"NaN", "lambda_min_clipped": -Infinity, "new": [1], "solver_p": null}"#,
        )
        .unwrap();
        assert_eq!(config.lambda_min_clipped, None);
        assert_eq!(config.class_name.as_deref(), Some("X -Infinity \"NaN"));
    }

    #[test]
    fn flow_matching_is_refused_even_with_a_sampler() {
        let config = SchedulerConfig {
            class_name: Some("FlowMatchEulerDiscreteScheduler".to_owned()),
            ..Default::default()
        };
        let options = SchedulerOptions { sampler: Some(Sampler::Euler), ..SchedulerOptions::new(4) };
        assert!(config.start(&options).is_err());
    }
}
