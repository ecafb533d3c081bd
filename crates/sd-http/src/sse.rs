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

/// After so many milliseconds a browser connects again. Without it they wait several seconds, each for a time of its own.
const RETRY_MS: u64 = 1000;

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

/// Whether a client that resumes there has the whole story of a job, its terminator too.
///
/// A browser's `EventSource` connects again after every end of a stream; 204 is what makes it stop.
pub(crate) fn has_all(updates: &JobUpdates, after: u64) -> bool {
    updates.last_id().is_some_and(|last| after > last)
}

/// Every update as one event, a comment whenever it is quiet for long, and nothing after the end.
///
/// The terminator has no id. After it goes an id without data, which is no event: by it a client that got the terminator
/// is known when it comes again.
pub(crate) fn body(
    job: JobId,
    mut updates: JobUpdates,
    frames: Frames,
    keep_alive: Duration,
) -> ResponseBody {
    let frames = stream! {
        let _listening = Listening::begin();
        yield Ok::<_, Infallible>(Frame::data(Bytes::from(format!("retry: {RETRY_MS}\n\n"))));
        loop {
            let bytes = match tokio::time::timeout(keep_alive, updates.next()).await {
                Err(_) => Bytes::from_static(b": keep-alive\n\n"),
                Ok(Some(JobUpdate::Event { id, event })) => frames.of(&job, id, &event),
                Ok(Some(JobUpdate::End(terminator))) => {
                    let beyond = updates.last_id().map(|last| format!("id: {}\n\n", last + 1)).unwrap_or_default();
                    Bytes::from(format!("data: {terminator}\n\n{beyond}"))
                }
                Ok(None) => break,
            };
            yield Ok(Frame::data(bytes));
        }
    };
    StreamBody::new(frames).boxed_unsync()
}
