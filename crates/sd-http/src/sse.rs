//! A job's story as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use async_stream::stream;
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use operations_contract::FieldError;
use sd_engine::{JobUpdate, JobUpdates};

use crate::body::ResponseBody;
use crate::error::ApiError;
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
pub(crate) fn body(mut updates: JobUpdates, keep_alive: Duration) -> ResponseBody {
    let frames = stream! {
        let _listening = Listening::begin();
        loop {
            let text = match tokio::time::timeout(keep_alive, updates.next()).await {
                Err(_) => ": keep-alive\n\n".to_owned(),
                Ok(Some(update)) => event(&update),
                Ok(None) => break,
            };
            yield Ok::<_, Infallible>(Frame::data(Bytes::from(text)));
        }
    };
    StreamBody::new(frames).boxed_unsync()
}

fn event(update: &JobUpdate) -> String {
    match update {
        JobUpdate::Event { id, event } => {
            // Events are plain data: they always serialize. JSON has no line breaks outside of strings, where they
            // are escaped.
            let json = serde_json::to_string(event).unwrap_or_default();
            format!("id: {id}\ndata: {json}\n\n")
        }
        JobUpdate::End(terminator) => format!("data: {terminator}\n\n"),
    }
}
