//! What can go wrong between a request and its images.

use crate::schedulers::SchedulerError;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a pipeline could not be loaded or a request not be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of the request cannot be used with this model. The caller's mistake: nothing was computed.
    #[error("{field} is {value}, but must be {limit}")]
    InvalidRequest {
        /// The request's field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What would be accepted.
        limit: String,
    },
    /// The folder holds a pipeline that this crate does not implement.
    #[error("{model}: {reason}")]
    UnsupportedModel {
        /// The folder.
        model: String,
        /// Why not.
        reason: String,
    },
    /// The model's files are missing, broken or of a kind that is not read here.
    #[error(transparent)]
    Model(#[from] sd_models::Error),
    /// The model, or a picture of the size asked for, would not fit into memory. Nothing was read or computed.
    #[error("not enough memory: {what}, but {room}; {advice}")]
    NotEnoughMemory {
        /// What needs how much.
        what: String,
        /// How much there is.
        room: String,
        /// What to do about it.
        advice: String,
    },
    /// The sampler could not be set up or stepped.
    #[error(transparent)]
    Scheduler(#[from] SchedulerError),
    /// The numbers left the range of the format: the image would be black or noise.
    #[error("{stage} produced values that are not finite")]
    NotFinite {
        /// Where it was noticed.
        stage: String,
    },
    /// A tensor operation failed: out of memory or a device error.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
