//! From the body of a request to another interface to a job.

use std::sync::Arc;

use bytes::Bytes;
use operations_contract::{FieldError, ModelCapabilities, ParsedOperation};
use sd_engine::{Accepted, JobRouter};

use crate::api::Api;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::intake::Upload;

/// A request to another interface in the words of the contract.
pub(crate) struct Translated<T> {
    pub(crate) operation: ParsedOperation,
    /// What the answer is made by.
    pub(crate) asked: T,
    /// What tells it apart from others under the same key. Not its operation: that follows from settings and from what
    /// the model can do, and when the same comes again, a restart later, these may be others.
    pub(crate) fingerprint: [u8; 32],
}

/// Translates a body and submits the operation under the key that it was sent with, where that holds nobody up. How it is
/// to be answered comes back.
pub(crate) async fn submit<T: Send + 'static>(
    api: &Api,
    caller: &Caller,
    key: Option<String>,
    body: Upload,
    translate: impl FnOnce(Bytes) -> Result<Translated<T>, ApiError> + Send + 'static,
) -> Result<(Accepted, T), ApiError> {
    let (router, options) = (api.router().clone(), caller.submits().under(key));
    let submit = move |body| {
        let Translated { operation, asked, fingerprint } = translate(body)?;
        let accepted = router.submit_with(operation, options.sent_as(fingerprint)).map_err(ApiError::from)?;
        Ok((accepted, asked))
    };
    counted(api, api.intake().work(body, submit).await)
}

/// What became of a submission, or of a part of the way to it. What the engine never came to see is counted here.
pub(crate) fn counted<T>(api: &Api, submitted: Result<T, ApiError>) -> Result<T, ApiError> {
    submitted.inspect_err(|error| {
        if !error.is_counted() {
            api.router().count_refusal(error.code());
        }
    })
}

/// Puts what a translation found wrong before what the contract did. What the contract says of a field that the translation
/// refused, or of a part of it, only follows from that: it is left out.
pub(crate) fn tell_first(
    faults: Vec<FieldError>,
    parsed: &mut ParsedOperation,
    their_name: impl Fn(&str) -> Option<String>,
) {
    let follows = |name: &str| {
        let rests = faults.iter().filter_map(|fault| name.strip_prefix(&fault.field));
        rests.into_iter().any(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    parsed.faults.retain(|fault| {
        let theirs = their_name(&fault.field);
        !follows(theirs.as_deref().unwrap_or(&fault.field))
    });
    parsed.faults.splice(0..0, faults);
}

/// The model that a request means: the one that it names, or the worker's own. `None` where there is none: then the request
/// is refused.
pub(crate) fn model(router: &JobRouter, name: Option<&str>) -> Option<Arc<ModelCapabilities>> {
    match name {
        Some(name) => router.find_model(name).map(|model| model.capabilities),
        None => router.readiness().ok(),
    }
}
