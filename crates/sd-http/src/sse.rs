//! A job's story as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use async_stream::stream;
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use operations_contract::{FieldError, JobId};
use sd_engine::{JobUpdate, JobUpdates};

use crate::body::ResponseBody;
use crate::error::ApiError;
use crate::frames::Frames;
use crate::metrics::Listening;

/// After which event the client wants to go on: 0 without `Last-Event-ID`.
pub(crate) fn last_event_id(headers: &HeaderMap) -> Result<u64, ApiError> {
    let Some(value) = headers.get("last-event-id") else { return Ok(0) };
    let text = value.to_str().unwrap_or_default();
    text.trim().parse().map_err(|_| {
        let fault =
            FieldError::new("Last-Event-ID", "is no event id of this stream: they are whole numbers from 1");
        ApiError::invalid(vec![fault.with_value(text)])
    })
}

/// Every update as one event, a comment whenever it is quiet for long, and nothing after the end.
pub(crate) fn body(
    job: JobId,
    mut updates: JobUpdates,
    frames: Frames,
    keep_alive: Duration,
) -> ResponseBody {
    let frames = stream! {
        let _listening = Listening::begin();
        loop {
            let bytes = match tokio::time::timeout(keep_alive, updates.next()).await {
                Err(_) => Bytes::from_static(b": keep-alive\n\n"),
                Ok(Some(JobUpdate::Event { id, event })) => frames.of(&job, id, &event),
                Ok(Some(JobUpdate::End(terminator))) => Bytes::from(format!("data: {terminator}\n\n")),
                Ok(None) => break,
            };
            yield Ok::<_, Infallible>(Frame::data(bytes));
        }
    };
    StreamBody::new(frames).boxed_unsync()
}
