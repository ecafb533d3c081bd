//! `POST /v1/jobs`

use bytes::Bytes;
use http::header::{HeaderValue, LOCATION};
use http::{Request, Response, StatusCode};
use hyper::body::Body;
use operations_contract::{JobId, Operation, Submitted};
use sd_engine::Accepted;
use serde_json::Value;
use tokio::runtime::Handle;

use crate::accept::Wanted;
use crate::api::Api;
use crate::body::{self, BodyKind, BoxError, ResponseBody};
use crate::caller::Caller;
use crate::error::ApiError;
use crate::idempotency;
use crate::multipart;
use crate::query;
use crate::submission;
use crate::wait::{self, Waiting};

pub(crate) async fn handle<B>(
    api: &Api,
    request: Request<B>,
    caller: &Caller,
) -> Result<Response<ResponseBody>, ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let (accepted, waiting) = submission::counted(api, submit(api, request, caller).await)?;
    let repeated = accepted.repeated;
    let mut response = match waiting {
        Some(waiting) => wait::answer(api, &accepted.job_id, waiting).await?,
        None => submitted(accepted.job_id),
    };
    idempotency::mark(response.headers_mut(), repeated);
    Ok(response)
}

/// The job, and how a client that waits for it is answered.
async fn submit<B>(
    api: &Api,
    request: Request<B>,
    caller: &Caller,
) -> Result<(Accepted, Option<Waiting>), ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let kind = body::kind(request.headers())?;
    let key = idempotency::key(request.headers())?;
    let [waits, with_images] = query::flags(request.uri(), ["wait", "images"])?;
    let waiting = waits.then(|| Waiting { wanted: Wanted::of(request.headers()), with_images });
    let wanted = waiting.as_ref().map_or(Wanted::Job, |waiting| waiting.wanted.clone());
    let upload = api.intake().read(request.into_body()).await?;
    let (router, options) = (api.router().clone(), caller.submits().under(key));
    let max_part_bytes = api.config().max_part_bytes;
    let submit = move |bytes| {
        let mut value = operation(bytes, kind, max_part_bytes)?;
        wanted.settle_format(&mut value)?;
        router.submit_with(Operation::parse(&value), options).map_err(ApiError::from)
    };
    Ok((api.intake().work(upload, submit).await?, waiting))
}

/// Where the job is.
fn submitted(job_id: JobId) -> Response<ResponseBody> {
    let url = format!("/v1/jobs/{job_id}");
    let submitted = Submitted { sse_url: format!("{url}/stream"), job_id };
    let mut response = body::json(StatusCode::ACCEPTED, &submitted);
    if let Ok(url) = HeaderValue::try_from(url) {
        response.headers_mut().insert(LOCATION, url);
    }
    response
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
