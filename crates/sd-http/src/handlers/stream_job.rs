//! `GET /v1/jobs/{id}/stream`

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use crate::api::Api;
use crate::body::{self, ResponseBody};
use crate::caller::Caller;
use crate::error::ApiError;
use crate::sse;

/// nginx keeps events back otherwise.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

pub(crate) async fn handle(
    api: &Api,
    id: &str,
    headers: &HeaderMap,
    caller: &Caller,
) -> Result<Response<ResponseBody>, ApiError> {
    let after = sse::last_event_id(headers)?;
    let job = caller.job(api, id).await?.job_id;
    let wanted = job.clone();
    let updates = api.blocking(move |router| router.subscribe(&wanted, after)).await?;
    let updates = updates.ok_or_else(|| ApiError::no_job(id))?;
    if sse::has_all(&updates, after) {
        let mut response = Response::new(body::full(Bytes::new()));
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    let mut response = Response::new(sse::body(job, updates, api.frames().clone(), api.config().keep_alive));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}
