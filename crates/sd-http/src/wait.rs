//! The synchronous form: a request that is answered when its job is over.

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::{HeaderMap, Response, StatusCode};
use operations_contract::{ErrorCode, EventImage, ImageData, ImageView, JobEvent, JobId, JobView};
use schemars::JsonSchema;
use sd_engine::{JobRouter, JobUpdate};
use serde::Serialize;

use crate::accept::Wanted;
use crate::api::Api;
use crate::body::{self, ResponseBody};
use crate::error::ApiError;

/// Which job an answer is about.
pub(crate) const X_JOB_ID: HeaderName = HeaderName::from_static("x-job-id");
/// The seed of the picture in the body.
const X_SEED: HeaderName = HeaderName::from_static("x-seed");

/// A finished job as its client has waited for it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FinishedJob {
    #[serde(flatten)]
    job: JobView,
    /// The pictures, which `job` has no more. Here, behind it, they count in the schema.
    images: Vec<FinishedImage>,
}

/// One picture of it.
#[derive(Debug, Serialize, JsonSchema)]
struct FinishedImage {
    #[serde(flatten)]
    view: ImageView,
    /// Where it is.
    url: String,
    /// The file, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<ImageData>,
}

/// How a client that waits is answered.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) wanted: Wanted,
    /// Whether the JSON holds the pictures, not only where they are.
    pub(crate) with_images: bool,
}

/// Follows a job to its end. A client that leaves drops this: the job goes on, unless it asked otherwise.
pub(crate) async fn end_of(api: &Api, id: &JobId) -> Result<Vec<EventImage>, ApiError> {
    let wanted = id.clone();
    let updates = api.blocking(move |router| router.subscribe(&wanted, 0)).await?;
    let mut updates = updates.ok_or_else(|| ApiError::no_job(id.as_str()))?;
    while let Some(update) = updates.next().await {
        match update {
            JobUpdate::Event { event: JobEvent::Complete { images, .. }, .. } => return Ok(images),
            JobUpdate::Event { event: JobEvent::Error(detail), .. } => return Err(detail.into()),
            _ => {}
        }
    }
    Err(ApiError::new(ErrorCode::InferenceFailed, "the job ended without a word"))
}

/// Answers with what became of the job.
pub(crate) async fn answer(
    api: &Api,
    id: &JobId,
    waiting: Waiting,
) -> Result<Response<ResponseBody>, ApiError> {
    let mut response = match end_of(api, id).await {
        Ok(images) => match (&waiting.wanted, images.into_iter().next()) {
            (Wanted::Picture(_), Some(image)) => picture(image),
            _ => job(api, id, waiting.with_images).await?,
        },
        Err(error) => error.into_response(),
    };
    name_job(response.headers_mut(), id);
    Ok(response)
}

/// Says in the headers which job this is about.
pub(crate) fn name_job(headers: &mut HeaderMap, id: &JobId) {
    if let Ok(name) = HeaderValue::try_from(id.as_str()) {
        headers.insert(X_JOB_ID, name);
    }
    if let Ok(url) = HeaderValue::try_from(format!("/v1/jobs/{id}")) {
        headers.insert(LOCATION, url);
    }
}

fn picture(image: EventImage) -> Response<ResponseBody> {
    let mut response = Response::new(body::full(bytes::Bytes::from_owner(image.image.shared())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(image.format.media_type()));
    headers.insert(X_SEED, HeaderValue::from(image.seed));
    response
}

/// The job as `GET` shows it, and with each picture where it is, or the picture itself.
async fn job(api: &Api, id: &JobId, with_images: bool) -> Result<Response<ResponseBody>, ApiError> {
    let wanted = id.clone();
    let shown = api.blocking(move |router| shown(router, &wanted, with_images)).await?;
    Ok(body::json(StatusCode::OK, &shown.ok_or_else(|| ApiError::no_job(id.as_str()))?))
}

/// `None` if it, or a picture of it, is not there any more.
fn shown(router: &JobRouter, id: &JobId, with_images: bool) -> Option<FinishedJob> {
    let mut job = router.job(id)?;
    let mut images = Vec::new();
    for (index, view) in std::mem::take(&mut job.images).into_iter().enumerate() {
        let stored = if with_images { Some(router.image(id, index)?) } else { None };
        let image = stored.map(|stored| ImageData::new(stored.bytes));
        images.push(FinishedImage { view, url: format!("/v1/jobs/{id}/images/{index}"), image });
    }
    Some(FinishedJob { job, images })
}
