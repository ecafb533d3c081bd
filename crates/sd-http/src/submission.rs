//! From the body of a request to another interface to a job.

use bytes::Bytes;
use operations_contract::ParsedOperation;
use sd_engine::Accepted;

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
