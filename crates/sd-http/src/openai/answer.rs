//! The pictures as OpenAI's clients read them.

use std::time::{SystemTime, UNIX_EPOCH};

use http::header::HOST;
use http::{HeaderMap, Response, StatusCode};
use operations_contract::{EventImage, JobId};

use super::request::Asked;
use super::views::{Image, Images};
use crate::body::{self, ResponseBody};

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Where the client reached this worker, for addresses that it can follow: `http://host:port`. A proxy that speaks TLS in
/// the worker's place says so in `X-Forwarded-Proto`.
pub(crate) fn origin(headers: &HeaderMap, https: bool) -> Option<String> {
    let host = headers.get(HOST)?.to_str().ok()?;
    let scheme = match headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok()) {
        Some("https") => "https",
        _ if https => "https",
        _ => "http",
    };
    Some(format!("{scheme}://{host}"))
}

/// `openai.types.ImagesResponse`, and beside its fields `job_id`, and `seed` of each picture.
pub(crate) fn images(
    id: &JobId,
    images: &[EventImage],
    asked: &Asked,
    origin: Option<&str>,
) -> Response<ResponseBody> {
    let one = |(index, image): (usize, &EventImage)| match asked.urls {
        true => {
            let url = format!("{}/v1/jobs/{id}/images/{index}", origin.unwrap_or_default());
            Image { url: Some(url), b64_json: None, seed: image.seed }
        }
        false => Image { url: None, b64_json: Some(image.image.to_base64()), seed: image.seed },
    };
    let first = images.first();
    // The client's type knows no `auto` here.
    let told = matches!(asked.quality.as_str(), "low" | "medium" | "high" | "xhigh" | "max");
    let answer = Images {
        created: now(),
        background: "opaque",
        data: images.iter().enumerate().map(one).collect(),
        job_id: id.clone(),
        output_format: first.map(|first| first.format),
        size: first.map(|first| size(first.width, first.height)),
        quality: told.then(|| asked.quality.clone()),
        safety_identifier: asked.identifier.clone(),
    };
    body::json(StatusCode::OK, &answer)
}

pub(crate) fn size(width: u32, height: u32) -> String {
    format!("{width}x{height}")
}
