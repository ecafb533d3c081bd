//! What of a `scheduler_config.json` no sampler could run with, known before a model is loaded.

use super::betas::BetaSource;
use super::config::parsed;
use super::{
    BetaSchedule, FinalSigmas, PredictionType, Result, SchedulerConfig, SchedulerError, TimestepSpacing,
};

/// The most training timesteps that a configuration may ask for; models have 1000.
const MAX_TRAIN_TIMESTEPS: usize = 100_000;

impl SchedulerConfig {
    /// Checks every field that all samplers read. What only some of them read (`solver_order`, `algorithm_type`, ...) is
    /// checked when a run is made, so that the model can still be used with another.
    ///
    /// # Errors
    /// [`SchedulerError::OutOfRange`], [`SchedulerError::UnknownName`] or [`SchedulerError::Unsupported`] of the first
    /// field that cannot be used.
    pub fn check(&self) -> Result<()> {
        self.refuse_flow()?;
        parsed(&self.prediction_type, PredictionType::Epsilon)?;
        parsed(&self.timestep_spacing, TimestepSpacing::Linspace)?;
        parsed(&self.final_sigmas_type, FinalSigmas::Zero)?;
        self.check_levels()?;
        self.alphas_cumprod().map(|_| ())
    }

    /// The betas that the configuration describes.
    pub(super) fn beta_source(&self) -> Result<BetaSource<'_>> {
        let (start, end, schedule) = self.beta_defaults();
        let timesteps = self.train_timesteps();
        let count = self.trained_betas.as_ref().map_or(timesteps, Vec::len);
        let possible = 2..=MAX_TRAIN_TIMESTEPS;
        let out_of_range = |field, value, limit| Err(SchedulerError::OutOfRange { field, value, limit });
        if !possible.contains(&timesteps) {
            return out_of_range("num_train_timesteps", timesteps.to_string(), "2 to 100000");
        }
        if !possible.contains(&count) {
            return out_of_range("trained_betas", format!("a list of {count}"), "a list of 2 to 100000");
        }
        Ok(BetaSource {
            count,
            start: self.beta_start.unwrap_or(start),
            end: self.beta_end.unwrap_or(end),
            schedule: parsed(&self.beta_schedule, schedule)?,
            trained: self.trained_betas.as_deref(),
            zero_terminal_snr: self.rescale_betas_zero_snr.unwrap_or(false),
        })
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

    pub(super) fn check_levels(&self) -> Result<()> {
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

    pub(super) fn refuse_flow(&self) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(fields: &str) -> String {
        SchedulerConfig::from_json(fields).unwrap().check().unwrap_err().to_string()
    }

    #[test]
    fn every_sampler_s_fields_are_told_with_value_and_limit() {
        for (fields, told) in [
            (r#"{"num_train_timesteps": 0}"#, "num_train_timesteps is 0, but must be 2 to 100000"),
            (r#"{"trained_betas": []}"#, "trained_betas is a list of 0, but must be a list of 2 to 100000"),
            (r#"{"beta_start": -1}"#, "beta_start is -1, but must be more than 0 and at most 1"),
            (r#"{"beta_end": 2.0}"#, "beta_end is 2, but must be more than 0 and at most 1"),
            (r#"{"sigma_max": 0}"#, "sigma_max is 0, but must be more than 0"),
            (r#"{"sigma_min": 2, "sigma_max": 1}"#, "sigma_min is 2, but must be less than sigma_max"),
            (r#"{"steps_offset": 100000}"#, "steps_offset is 100000, but must be less than 100000"),
            (
                r#"{"beta_schedule": "sigmoid"}"#,
                r#"beta_schedule "sigmoid" is unknown; choose one of linear, "#,
            ),
            (
                r#"{"prediction_type": "flow"}"#,
                r#"prediction_type "flow" is unknown; choose one of epsilon, "#,
            ),
            (r#"{"timestep_spacing": "even"}"#, r#"timestep_spacing "even" is unknown; choose one of "#),
            (r#"{"final_sigmas_type": "one"}"#, r#"final_sigmas_type "one" is unknown; choose one of "#),
            (r#"{"use_flow_sigmas": true}"#, "scheduler_config.json: use_flow_sigmas true is not supported"),
        ] {
            assert!(fault(fields).starts_with(told), "{fields}: {}", fault(fields));
        }
    }

    /// What only some samplers read is no reason to refuse a model to the others.
    #[test]
    fn what_some_samplers_read_is_left_to_them() {
        for fields in ["{}", r#"{"algorithm_type": "dpmsolver"}"#, r#"{"variance_type": "learned_range"}"#] {
            SchedulerConfig::from_json(fields).unwrap().check().unwrap();
        }
    }
}
