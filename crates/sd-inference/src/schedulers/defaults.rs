//! Which sampler a model means that names a class of diffusers.

use super::{PredictionType, Result, Sampler, SchedulerConfig, SchedulerError, TimestepSpacing};

/// Classes that are implemented.
const OWN: [(&str, Sampler); 15] = [
    ("DDIMScheduler", Sampler::Ddim),
    ("DDPMScheduler", Sampler::Ddpm),
    ("PNDMScheduler", Sampler::Pndm),
    ("EulerDiscreteScheduler", Sampler::Euler),
    ("EulerAncestralDiscreteScheduler", Sampler::EulerA),
    ("HeunDiscreteScheduler", Sampler::Heun),
    ("KDPM2DiscreteScheduler", Sampler::Dpm2),
    ("KDPM2AncestralDiscreteScheduler", Sampler::Dpm2A),
    ("LMSDiscreteScheduler", Sampler::Lms),
    (DPM_MULTISTEP, Sampler::Dpmpp2m),
    ("DPMSolverSDEScheduler", Sampler::DpmppSde),
    ("UniPCMultistepScheduler", Sampler::UniPc),
    ("DEISMultistepScheduler", Sampler::Deis),
    ("LCMScheduler", Sampler::Lcm),
    ("TCDScheduler", Sampler::Tcd),
];

/// The class whose configuration says whether it is `dpmpp_2m` or `dpmpp_2m_sde`.
pub(super) const DPM_MULTISTEP: &str = "DPMSolverMultistepScheduler";

impl SchedulerConfig {
    /// The sampler of a request that does not choose, and a note if it is not quite the model's own.
    ///
    /// | class of the model | sampler | note |
    /// |---|---|---|
    /// | a class that is implemented | its own | |
    /// | PNDM without `skip_prk_steps` | `pndm` | the Runge-Kutta steps that begin a run are left out |
    /// | DPMSolverSinglestep | `dpmpp_2m` | second order on the same ODE |
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
            return Ok(match sampler {
                Sampler::Dpmpp2m if self.algorithm_type.as_deref() == Some("sde-dpmsolver++") => {
                    (Sampler::Dpmpp2mSde, None)
                }
                Sampler::Pndm if self.skip_prk_steps != Some(true) => {
                    let note = "PNDMScheduler: skip_prk_steps is not set, but the Runge-Kutta steps that would begin \
                                a run are left out";
                    (Sampler::Pndm, Some(note.to_owned()))
                }
                sampler => (*sampler, None),
            });
        }
        if class == "DPMSolverSinglestepScheduler" {
            let sampler = Sampler::Dpmpp2m;
            let note = format!("{class} is not implemented yet: sampling with {sampler} instead");
            return Ok((sampler, Some(note)));
        }
        Err(SchedulerError::Unsupported {
            field: "_class_name",
            value: class.to_owned(),
            hint: "docs/samplers.md lists the classes that are",
        })
    }
}

impl SchedulerConfig {
    /// Whether the settings are those of models that were distilled to one to four steps without guidance (SD Turbo, SDXL
    /// Turbo): Euler's steps down from the highest timestep, of a model that was trained with ordinary noise levels.
    pub fn few_steps(&self) -> bool {
        let euler = matches!(
            self.class_name.as_deref(),
            Some("EulerDiscreteScheduler" | "EulerAncestralDiscreteScheduler")
        );
        let trailing = self.timestep_spacing.as_deref() == Some(TimestepSpacing::Trailing.name());
        let epsilon =
            self.prediction_type.as_deref().is_none_or(|kind| kind == PredictionType::Epsilon.name());
        euler && trailing && epsilon && self.rescale_betas_zero_snr != Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(class: &str) -> SchedulerConfig {
        SchedulerConfig { class_name: Some(class.to_owned()), ..SchedulerConfig::default() }
    }

    #[test]
    fn own_classes_need_no_note_and_others_get_one() {
        assert_eq!(of("UniPCMultistepScheduler").default_sampler().unwrap(), (Sampler::UniPc, None));
        let pndm = SchedulerConfig { skip_prk_steps: Some(true), ..of("PNDMScheduler") };
        assert_eq!(pndm.default_sampler().unwrap(), (Sampler::Pndm, None));
        let (sampler, note) = of("PNDMScheduler").default_sampler().unwrap();
        assert!(sampler == Sampler::Pndm && note.unwrap().contains("skip_prk_steps"));
        let (sampler, note) = of("DPMSolverSinglestepScheduler").default_sampler().unwrap();
        assert_eq!(sampler, Sampler::Dpmpp2m);
        assert_eq!(
            note.unwrap(),
            "DPMSolverSinglestepScheduler is not implemented yet: sampling with dpmpp_2m instead"
        );
        let message = of("MyScheduler").default_sampler().unwrap_err().to_string();
        assert!(message.contains("_class_name MyScheduler"), "{message}");
    }

    /// The settings of published models.
    #[test]
    fn distilled_models_are_known_by_their_settings() {
        let config = |json: &str| SchedulerConfig::from_json(json).unwrap();
        for turbo in [
            r#"{"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing", "prediction_type": "epsilon"}"#,
            r#"{"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}"#,
        ] {
            assert!(config(turbo).few_steps(), "{turbo}");
        }
        for ordinary in [
            r#"{"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading", "prediction_type": "epsilon"}"#,
            r#"{"_class_name": "DDIMScheduler", "timestep_spacing": "trailing"}"#,
            r#"{"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing", "rescale_betas_zero_snr": true}"#,
            r#"{"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing", "prediction_type": "v_prediction"}"#,
            "{}",
        ] {
            assert!(!config(ordinary).few_steps(), "{ordinary}");
        }
    }

    #[test]
    fn one_class_means_two_samplers() {
        let sde = Some("sde-dpmsolver++".to_owned());
        let config = SchedulerConfig { algorithm_type: sde, ..of(DPM_MULTISTEP) };
        assert_eq!(config.default_sampler().unwrap(), (Sampler::Dpmpp2mSde, None));
        assert_eq!(of(DPM_MULTISTEP).default_sampler().unwrap(), (Sampler::Dpmpp2m, None));
    }
}
