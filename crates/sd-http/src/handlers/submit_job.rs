//! `POST /v1/jobs`

use bytes::Bytes;
use http::header::{HeaderValue, LOCATION};
use http::{Request, Response, StatusCode};
use hyper::body::Body;
use operations_contract::{Operation, Submitted};
use serde_json::Value;
use tokio::runtime::Handle;

use crate::api::Api;
use crate::body::{self, BodyKind, BoxError, ResponseBody};
use crate::caller::Caller;
use crate::error::ApiError;
use crate::multipart;

pub(crate) async fn handle<B>(
    api: &Api,
    request: Request<B>,
    caller: &Caller,
) -> Result<Response<ResponseBody>, ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let kind = body::kind(request.headers())?;
    let upload = api.intake().read(request.into_body()).await?;
    let (router, options) = (api.router().clone(), caller.submits());
    let max_part_bytes = api.config().max_part_bytes;
    let submit = move |bytes| {
        let value = operation(bytes, kind, max_part_bytes)?;
        router.submit_with(Operation::parse(&value), options).map_err(ApiError::from)
    };
    let accepted = api.intake().work(upload, submit).await?;
    let url = format!("/v1/jobs/{}", accepted.job_id);
    let submitted = Submitted { sse_url: format!("{url}/stream"), job_id: accepted.job_id };
    let mut response = body::json(StatusCode::ACCEPTED, &submitted);
    if let Ok(url) = HeaderValue::try_from(url) {
        response.headers_mut().insert(LOCATION, url);
    }
    Ok(response)
}

/// What the body says, as JSON. Runs where it may take a while.
fn operation(bytes: Bytes, kind: BodyKind, max_part_bytes: usize) -> Result<Value, ApiError> {
    match kind {
        BodyKind::Json => body::parse_json(&bytes),
        BodyKind::Form(boundary) => {
            let parts = Handle::current().block_on(multipart::parts(bytes, boundary, max_part_bytes))?;
            multipart::operation(parts)
        }
    }
}
