//! What a model says about its schedule, and the way from there to a run.

use serde::Deserialize;

use super::betas::BetaSource;
use super::ddim::Ddim;
use super::dpm_multistep::DpmMultistep;
use super::euler::{Euler, EulerAncestral};
use super::plan::Plan;
use super::unipc::UniPc;
use super::{
    BetaSchedule, FinalSigmas, PredictionType, Result, Sampler, Schedule, Scheduler, SchedulerError,
    SchedulerOptions, TimestepSpacing,
};

/// The most training timesteps that a configuration may ask for; models have 1000.
const MAX_TRAIN_TIMESTEPS: usize = 100_000;

/// A `scheduler_config.json` as diffusers writes it, for any of its classes.
///
/// A field that is missing or null has the default of the diffusers class that the sampler corresponds to; a field
/// that is not listed here is ignored. Names are checked when a run is made, so that a model whose own sampler is
/// unknown can still be used with another.
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
    /// A [`TimestepSpacing`] (`leading` for `ddim`, `linspace` for the others).
    pub timestep_spacing: Option<String>,
    /// Added to every timestep of leading spacing (0).
    pub steps_offset: Option<usize>,
    /// A [`FinalSigmas`] (`zero`); `euler`, `dpmpp_2m` and `unipc`.
    pub final_sigmas_type: Option<String>,
    /// [`Schedule::Karras`]; `euler`, `dpmpp_2m` and `unipc`.
    pub use_karras_sigmas: Option<bool>,
    /// [`Schedule::Exponential`]; `euler`, `dpmpp_2m` and `unipc`.
    pub use_exponential_sigmas: Option<bool>,
    /// Not supported yet.
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
    /// Whether the clean sample is clipped (`ddim`: yes, unless the model's own class never does).
    pub clip_sample: Option<bool>,
    /// Where it is clipped (1).
    pub clip_sample_range: Option<f64>,
    /// Whether the last step of `ddim` ends at the clean sample (yes) or at the first training timestep.
    pub set_alpha_to_one: Option<bool>,
    /// Dynamic thresholding of the clean sample (no); `ddim`, `dpmpp_2m` and `unipc`.
    pub thresholding: Option<bool>,
    /// The quantile of dynamic thresholding (0.995).
    pub dynamic_thresholding_ratio: Option<f64>,
    /// The largest threshold (1).
    pub sample_max_value: Option<f64>,
    /// `dpmsolver++` or `sde-dpmsolver++` (the first); DPMSolverMultistepScheduler.
    pub algorithm_type: Option<String>,
    /// The order of the solver (2); `unipc`, and `dpmpp_2m` as the model's own class.
    pub solver_order: Option<usize>,
    /// `midpoint` or `heun` for `dpmpp_2m`, `bh1` or `bh2` for `unipc` (the first and the last).
    pub solver_type: Option<String>,
    /// Whether the order falls towards the end (yes); `dpmpp_2m` below 15 steps, `unipc` always.
    pub lower_order_final: Option<bool>,
    /// Whether the last step is of first order (no); `dpmpp_2m`.
    pub euler_at_final: Option<bool>,
    /// Timesteps above the one with this half log-SNR are not used (none are left out); `dpmpp_2m`.
    pub lambda_min_clipped: Option<f64>,
    /// Models that predict a variance as well are not supported; `dpmpp_2m`.
    pub variance_type: Option<String>,
    /// Whether the solver works on the clean sample (yes); the other form is not supported; `unipc`.
    pub predict_x0: Option<bool>,
    /// Steps after which the corrector is left out (none); `unipc`.
    pub disable_corrector: Option<Vec<usize>>,
}

impl SchedulerConfig {
    /// Reads the text of a `scheduler_config.json`, also one with the bare `-Infinity` that Python writes.
    pub fn from_json(text: &str) -> Result<Self> {
        Ok(serde_json::from_str(&without_bare_infinities(text))?)
    }

    /// What the reference's `StableDiffusionPipeline` (SD 1.x and 2.x, not SDXL) does to a loaded scheduler: leading
    /// timesteps are offset by 1, and latents are never clipped.
    #[must_use]
    pub fn with_stable_diffusion_fixes(mut self) -> Self {
        self.steps_offset = Some(1);
        self.clip_sample = Some(false);
        self
    }

    /// The sampler of a request that does not choose, and a note if it is not the model's own.
    ///
    /// | class of the model | sampler | why |
    /// |---|---|---|
    /// | DDIM, EulerDiscrete, EulerAncestralDiscrete, DPMSolverMultistep, UniPCMultistep | its own | |
    /// | PNDM | `ddim` | the same transfer from step to step, timesteps and end; first order instead of fourth |
    /// | DDPM | `ddim` with `eta` 1 | the same mean and variance at each step |
    /// | DEISMultistep, DPMSolverSinglestep, DPMSolverSDE | `dpmpp_2m` | second order on the same ODE |
    /// | LMSDiscrete, HeunDiscrete, KDPM2Discrete | `euler` | the same levels and scaling, of first order |
    /// | KDPM2AncestralDiscrete, LCM | `euler_a` | fresh noise after each step |
    /// | TCD | `ddim` | what TCD is when its gamma is 0 |
    /// | none named | `euler` | |
    ///
    /// # Errors
    /// Flow matching and unknown classes have no substitute.
    pub fn default_sampler(&self) -> Result<(Sampler, Option<String>)> {
        let Some(class) = self.class_name.as_deref() else {
            let note = "scheduler_config.json names no class: sampling with euler".to_owned();
            return Ok((Sampler::Euler, Some(note)));
        };
        if let Some((_, sampler)) = OWN.iter().find(|(name, _)| *name == class) {
            return Ok((*sampler, None));
        }
        if let Some((_, sampler)) = SUBSTITUTES.iter().find(|(name, _)| *name == class) {
            let with = if class == DDPM { " with eta 1" } else { "" };
            return Ok((
                *sampler,
                Some(format!("{class} is not implemented yet: sampling with {sampler}{with} instead")),
            ));
        }
        Err(SchedulerError::Unsupported {
            field: "_class_name",
            value: class.to_owned(),
            hint: "choose a sampler for it, unless it is a flow-matching model",
        })
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
            Sampler::Dpmpp2m => Box::new(DpmMultistep::new(self, options, &plan)?),
            Sampler::UniPc => Box::new(UniPc::new(self, &plan)?),
        })
    }

    /// The share of signal in the squared sample at each training timestep, f32 as in torch.
    pub fn alphas_cumprod(&self) -> Result<Vec<f32>> {
        let (start, end, schedule) = self.beta_defaults();
        let count = match &self.trained_betas {
            Some(betas) => betas.len(),
            None => self.num_train_timesteps.unwrap_or(1000),
        };
        if !(2..=MAX_TRAIN_TIMESTEPS).contains(&count) {
            return Err(SchedulerError::OutOfRange {
                field: "num_train_timesteps",
                value: count.to_string(),
                limit: "2 to 100000",
            });
        }
        let source = BetaSource {
            count,
            start: self.beta_start.unwrap_or(start),
            end: self.beta_end.unwrap_or(end),
            schedule: parsed(&self.beta_schedule, schedule)?,
            trained: self.trained_betas.as_deref(),
            zero_terminal_snr: self.rescale_betas_zero_snr.unwrap_or(false),
        };
        source.alphas_cumprod()
    }

    /// Betas are a matter of the model, so their defaults are those of the model's own class.
    fn beta_defaults(&self) -> (f64, f64, BetaSchedule) {
        match self.class_name.as_deref() {
            Some("LCMScheduler" | "TCDScheduler") => (0.00085, 0.012, BetaSchedule::ScaledLinear),
            Some(
                "HeunDiscreteScheduler"
                | "KDPM2DiscreteScheduler"
                | "KDPM2AncestralDiscreteScheduler"
                | "DPMSolverSDEScheduler",
            ) => (0.00085, 0.012, BetaSchedule::Linear),
            _ => (0.0001, 0.02, BetaSchedule::Linear),
        }
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
            Sampler::Ddim => TimestepSpacing::Leading,
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
            eta: self.eta(options)?,
            own_defaults: options.sampler.is_none(),
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
        // diffusers' classes of these two have no other schedule, so their configurations mean none.
        let normal_only = matches!(sampler, Sampler::EulerA | Sampler::Ddim);
        if let Some(schedule) = options.schedule {
            return Ok(schedule);
        }
        if normal_only {
            return Ok(Schedule::Normal);
        }
        let unsupported = |field| {
            Err(SchedulerError::Unsupported {
                field,
                value: "true".to_owned(),
                hint: "choose a schedule for it: normal, karras or exponential",
            })
        };
        let set = |flag: Option<bool>| flag == Some(true);
        match (set(self.use_karras_sigmas), set(self.use_exponential_sigmas)) {
            _ if set(self.use_beta_sigmas) => unsupported("use_beta_sigmas"),
            _ if set(self.use_lu_lambdas) => unsupported("use_lu_lambdas"),
            (true, true) => unsupported("use_exponential_sigmas beside use_karras_sigmas"),
            (true, false) => Ok(Schedule::Karras),
            (false, true) => Ok(Schedule::Exponential),
            (false, false) => Ok(Schedule::Normal),
        }
    }

    /// DDPM is DDIM with as much noise as its variance allows; all else has none unless a request wants it.
    fn eta(&self, options: &SchedulerOptions) -> Result<f64> {
        let is_ddpm = options.sampler.is_none() && self.class_name.as_deref() == Some(DDPM);
        let eta = options.eta.unwrap_or(if is_ddpm { 1.0 } else { 0.0 });
        if (0.0..=1.0).contains(&eta) {
            return Ok(eta);
        }
        Err(SchedulerError::OutOfRange { field: "eta", value: eta.to_string(), limit: "0 to 1" })
    }

    fn check_levels(&self) -> Result<()> {
        let out_of_range =
            |field, value: String, limit| Err(SchedulerError::OutOfRange { field, value, limit });
        for (field, level) in [("sigma_min", self.sigma_min), ("sigma_max", self.sigma_max)] {
            if let Some(level) = level.filter(|level| !(level.is_finite() && *level > 0.0)) {
                return out_of_range(field, level.to_string(), "more than 0");
            }
        }
        if let (Some(low), Some(high)) = (self.sigma_min, self.sigma_max)
            && low >= high
        {
            return out_of_range("sigma_min", low.to_string(), "less than sigma_max");
        }
        match self.steps_offset {
            Some(offset) if offset >= MAX_TRAIN_TIMESTEPS => {
                out_of_range("steps_offset", offset.to_string(), "less than 100000")
            }
            _ => Ok(()),
        }
    }

    fn refuse_flow(&self) -> Result<()> {
        let class = self.class_name.as_deref().unwrap_or_default();
        let hint = "flow matching is not implemented yet";
        if class.starts_with("FlowMatch") {
            return Err(SchedulerError::Unsupported { field: "_class_name", value: class.to_owned(), hint });
        }
        if self.use_flow_sigmas == Some(true) {
            return Err(SchedulerError::Unsupported {
                field: "use_flow_sigmas",
                value: "true".to_owned(),
                hint,
            });
        }
        Ok(())
    }
}

const DDPM: &str = "DDPMScheduler";

/// Classes that are implemented.
const OWN: [(&str, Sampler); 5] = [
    ("DDIMScheduler", Sampler::Ddim),
    ("EulerDiscreteScheduler", Sampler::Euler),
    ("EulerAncestralDiscreteScheduler", Sampler::EulerA),
    ("DPMSolverMultistepScheduler", Sampler::Dpmpp2m),
    ("UniPCMultistepScheduler", Sampler::UniPc),
];

/// Classes that are not, and what comes closest.
const SUBSTITUTES: [(&str, Sampler); 11] = [
    ("PNDMScheduler", Sampler::Ddim),
    (DDPM, Sampler::Ddim),
    ("DEISMultistepScheduler", Sampler::Dpmpp2m),
    ("DPMSolverSinglestepScheduler", Sampler::Dpmpp2m),
    ("DPMSolverSDEScheduler", Sampler::Dpmpp2m),
    ("LMSDiscreteScheduler", Sampler::Euler),
    ("HeunDiscreteScheduler", Sampler::Euler),
    ("KDPM2DiscreteScheduler", Sampler::Euler),
    ("KDPM2AncestralDiscreteScheduler", Sampler::EulerA),
    ("LCMScheduler", Sampler::EulerA),
    ("TCDScheduler", Sampler::Ddim),
];

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
    fn own_classes_need_no_note_and_others_get_one() {
        let of = |class: &str| SchedulerConfig { class_name: Some(class.to_owned()), ..Default::default() };
        assert_eq!(of("UniPCMultistepScheduler").default_sampler().unwrap(), (Sampler::UniPc, None));
        let (sampler, note) = of("PNDMScheduler").default_sampler().unwrap();
        assert_eq!(sampler, Sampler::Ddim);
        assert_eq!(note.unwrap(), "PNDMScheduler is not implemented yet: sampling with ddim instead");
        let message = of("MyScheduler").default_sampler().unwrap_err().to_string();
        assert!(message.contains("_class_name MyScheduler"), "{message}");
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
