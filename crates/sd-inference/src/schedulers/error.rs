use super::Sampler;

/// Why a scheduler could not be made or could not step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchedulerError {
    /// The number of steps is zero or more than the model's training timesteps allow.
    #[error("steps is {steps}, but {sampler} takes 1 to {limit} for this model")]
    Steps {
        /// As requested.
        steps: usize,
        /// The largest number that this sampler can do.
        limit: usize,
        /// Who cannot.
        sampler: Sampler,
    },
    /// A name that is none of the known ones.
    #[error("{field} {value:?} is unknown; choose one of {allowed}")]
    UnknownName {
        /// The field of the request or of `scheduler_config.json`.
        field: &'static str,
        /// The name as it was given.
        value: String,
        /// The names that exist, separated by commas.
        allowed: String,
    },
    /// A configuration that means something which is not implemented.
    #[error("scheduler_config.json: {field} {value} is not supported; {hint}")]
    Unsupported {
        /// The field of `scheduler_config.json`.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is supported.
        hint: &'static str,
    },
    /// An eta for a sampler that has no use for it.
    #[error("eta was given, but {sampler} takes none; ddim, tcd, dpmpp_2s_a and dpmpp_3m_sde do")]
    NoEta {
        /// Who takes none.
        sampler: Sampler,
    },
    /// A number out of its range.
    #[error("{field} is {value}, but must be {limit}")]
    OutOfRange {
        /// The field of the request or of `scheduler_config.json`.
        field: &'static str,
        /// Its value.
        value: String,
        /// The range in words.
        limit: &'static str,
    },
    /// `scheduler_config.json` is no JSON object of the expected types.
    #[error("scheduler_config.json cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A step that does not follow the one before, or is past the end.
    #[error("step {step} was asked for, but {expected} of {steps} is next")]
    StepOrder {
        /// The index that was passed.
        step: usize,
        /// The index that was due.
        expected: usize,
        /// The number of steps of this run.
        steps: usize,
    },
    /// A tensor operation failed, for example because shapes differ.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
