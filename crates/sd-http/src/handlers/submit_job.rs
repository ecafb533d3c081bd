//! `POST /v1/jobs`

use bytes::Bytes;
use http::header::{HeaderValue, LOCATION};
use http::{Request, Response, StatusCode};
use hyper::body::Body;
use operations_contract::{ErrorCode, Submitted};

use crate::api::Api;
use crate::body::{self, BoxError, ResponseBody};
use crate::error::ApiError;

pub(crate) async fn handle<B>(api: &Api, request: Request<B>) -> Result<Response<ResponseBody>, ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    body::require_json(request.headers())?;
    let config = api.config();
    let bytes = body::read(request.into_body(), config.max_body_bytes, config.body_timeout).await?;
    let router = api.router().clone();
    // Parsing and decoding megabytes of images would hold up everybody else on this thread.
    let submitted = tokio::task::spawn_blocking(move || {
        let value = body::parse_json(&bytes)?;
        drop(bytes);
        router.submit_json(&value).map_err(ApiError::from)
    });
    let accepted = submitted.await.map_err(|error| {
        tracing::error!(%error, "a submission panicked");
        ApiError::new(ErrorCode::InferenceFailed, "the request could not be processed")
    })??;
    let url = format!("/v1/jobs/{}", accepted.job_id);
    let submitted = Submitted { sse_url: format!("{url}/stream"), job_id: accepted.job_id };
    let mut response = body::json(StatusCode::ACCEPTED, &submitted);
    if let Ok(url) = HeaderValue::try_from(url) {
        response.headers_mut().insert(LOCATION, url);
    }
    Ok(response)
}
