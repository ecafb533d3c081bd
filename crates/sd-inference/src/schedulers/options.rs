use super::{Sampler, Schedule, TimestepSpacing};

/// What a request chose. Whatever it left open is the model's own choice.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerOptions {
    /// The number of denoising steps.
    pub steps: usize,
    /// The update rule; by default that of the model's class, see [`SchedulerConfig::default_sampler`](super::SchedulerConfig::default_sampler).
    pub sampler: Option<Sampler>,
    /// The spread of noise levels.
    pub schedule: Option<Schedule>,
    /// The layout over training timesteps.
    pub spacing: Option<TimestepSpacing>,
    /// How much fresh noise is mixed in: 0 none, 1 as much as the reverse SDE has. Only for the samplers that
    /// [take it](Sampler::takes_eta): `ddim` and `tcd` (0 by default), `dpmpp_2s_a` and `dpmpp_3m_sde` (1).
    pub eta: Option<f64>,
}

impl SchedulerOptions {
    /// So many steps, and all else as the model has it.
    pub fn new(steps: usize) -> Self {
        Self { steps, sampler: None, schedule: None, spacing: None, eta: None }
    }
}

impl Default for SchedulerOptions {
    /// 50 steps, the default of the reference's pipelines.
    fn default() -> Self {
        Self::new(50)
    }
}
