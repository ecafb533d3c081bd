//! `GET /v1/jobs/{id}/images/{n}`

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use http::{HeaderMap, Response, StatusCode};
use operations_contract::ErrorCode;

use crate::api::Api;
use crate::body::{ResponseBody, full};
use crate::caller::Caller;
use crate::error::ApiError;

pub(crate) fn handle(
    api: &Api,
    id: &str,
    index: usize,
    headers: &HeaderMap,
    caller: &Caller,
) -> Result<Response<ResponseBody>, ApiError> {
    let job = caller.job(api, id)?;
    let job_id = &job.job_id;
    let Some(image) = api.router().image(job_id, index) else {
        let message = match job.images.len() {
            0 => "the job has no images (yet)".to_owned(),
            count => format!("the job has no image {index}: they are 0..={}", count - 1),
        };
        return Err(ApiError::new(ErrorCode::NotFound, message));
    };
    // A job's name is never given out twice and its images never change: together they name the bytes.
    let etag = format!("\"{job_id}-{index}\"");
    let known = matches(headers, &etag);
    let mut response = match known {
        true => Response::new(full(Bytes::new())),
        false => Response::new(full(Bytes::from_owner(image.bytes))),
    };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::try_from(etag) {
        headers.insert(ETAG, etag);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable"));
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(image.format.media_type()));
    }
    Ok(response)
}

fn matches(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
    })
}
