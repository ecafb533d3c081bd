//! The `scheduler_config.json` of a model.

use super::load::Opened;
use crate::schedulers::{SchedulerConfig, SchedulerError};
use crate::{Error, Result};

/// Where it lies.
const FILE: &str = "scheduler/scheduler_config.json";

/// The configuration, with which a request that chooses no sampler has one.
///
/// # Errors
/// What is wrong with it, with the file's name: nothing of it is left for a job to fail at, but for what single samplers
/// read.
pub(super) fn read(opened: &Opened<'_>) -> Result<SchedulerConfig> {
    let told = |error| in_file(error, opened.describe(FILE));
    let config = SchedulerConfig::from_json(&opened.text(FILE)?).map_err(told)?;
    config.check().map_err(told)?;
    let (sampler, _) = config.default_sampler().map_err(told)?;
    config.default_schedule(sampler).map_err(told)?;
    Ok(config)
}

/// The error with the name of the file that it was found in.
fn in_file(error: SchedulerError, file: String) -> Error {
    let unusable = |field: &str, found, supported| {
        let field = field.to_owned();
        sd_models::Error::UnsupportedConfig { file: file.clone(), field, found, supported }.into()
    };
    match error {
        SchedulerError::Json(source) => sd_models::Error::Json { file, source }.into(),
        SchedulerError::OutOfRange { field, value, limit } => unusable(field, value, limit.to_owned()),
        SchedulerError::UnknownName { field, value, allowed } => {
            unusable(field, format!("`{value}`"), format!("one of {allowed}"))
        }
        SchedulerError::Unsupported { field, value, hint } => Error::UnsupportedModel {
            model: file,
            reason: format!("`{field}` {value} is not supported; {hint}"),
        },
        other => Error::UnsupportedModel { model: file, reason: other.to_string() },
    }
}
