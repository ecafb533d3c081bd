//! From the body of a request to another interface to a job.

use std::sync::Arc;

use bytes::Bytes;
use operations_contract::{ModelCapabilities, ParsedOperation};
use sd_engine::{Accepted, JobRouter};

use crate::api::Api;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::intake::Upload;

/// Translates a body and submits the operation, where that holds nobody up. What `translate` gives beside the operation
/// comes back.
pub(crate) async fn submit<T: Send + 'static>(
    api: &Api,
    caller: &Caller,
    body: Upload,
    translate: impl FnOnce(Bytes) -> Result<(ParsedOperation, T), ApiError> + Send + 'static,
) -> Result<(Accepted, T), ApiError> {
    let (router, options) = (api.router().clone(), caller.submits());
    let submit = move |body| {
        let (parsed, beside) = translate(body)?;
        let accepted = router.submit_with(parsed, options).map_err(ApiError::from)?;
        Ok((accepted, beside))
    };
    api.intake().work(body, submit).await
}

/// The model that a request means: the one that it names, or the worker's own. `None` where there is none: then the request
/// is refused.
pub(crate) fn model(router: &JobRouter, name: Option<&str>) -> Option<Arc<ModelCapabilities>> {
    match name {
        Some(name) => router.find_model(name).map(|model| model.capabilities),
        None => router.readiness().ok(),
    }
}
