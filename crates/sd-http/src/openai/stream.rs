//! A run as OpenAI's clients follow it: partial pictures, then the finished ones.

use std::convert::Infallible;

use async_stream::stream;
use bytes::Bytes;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use operations_contract::{EventImage, ImageData, ImageFormat, JobEvent, JobId};
use sd_engine::JobUpdate;
use serde_json::{Value, json};

use super::answer::{now, size};
use super::request::Asked;
use super::{Call, error_body};
use crate::api::Api;
use crate::body::ResponseBody;
use crate::error::ApiError;

pub(crate) async fn answer(api: &Api, id: &JobId, asked: Asked) -> Result<Response<ResponseBody>, ApiError> {
    let wanted = id.clone();
    let updates = api.blocking(move |router| router.subscribe(&wanted, 0)).await?;
    let mut updates = updates.ok_or_else(|| ApiError::no_job(id.as_str()))?;
    let keep_alive = api.config().keep_alive;
    let mut events = Events { asked, size: Value::Null, partial: 0 };
    let frames = stream! {
        loop {
            let text = match tokio::time::timeout(keep_alive, updates.next()).await {
                Err(_) => ": keep-alive\n\n".to_owned(),
                Ok(Some(JobUpdate::Event { event, .. })) => events.of(event),
                Ok(Some(JobUpdate::End(_)) | None) => break,
            };
            if !text.is_empty() {
                yield Ok::<_, Infallible>(Frame::data(Bytes::from(text)));
            }
        }
    };
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// Turns the events of a job into OpenAI's.
struct Events {
    asked: Asked,
    /// As the run began with it.
    size: Value,
    partial: u64,
}

impl Events {
    /// No event, one, or one for each picture.
    fn of(&mut self, event: JobEvent) -> String {
        match event {
            JobEvent::Started { width, height, .. } => {
                self.size = size(width, height);
                String::new()
            }
            JobEvent::Preview { image, format, .. } if self.partial < self.asked.partial_images => {
                let mut event = self.event("partial_image", &image, format, self.size.clone());
                event["partial_image_index"] = self.partial.into();
                self.partial += 1;
                written(&event)
            }
            JobEvent::Complete { images, .. } => images.iter().map(|image| self.completed(image)).collect(),
            JobEvent::Error(detail) => {
                let mut event = error_body(detail);
                event["type"] = "error".into();
                written(&event)
            }
            _ => String::new(),
        }
    }

    fn completed(&self, image: &EventImage) -> String {
        let size = size(image.width, image.height);
        let mut event = self.event("completed", &image.image, image.format, size);
        event["seed"] = image.seed.into();
        // Nothing is counted here; the client's type wants the fields.
        event["usage"] = json!({"input_tokens": 0, "output_tokens": 0, "total_tokens": 0,
                                "input_tokens_details": {"image_tokens": 0, "text_tokens": 0}});
        if let Some(identifier) = &self.asked.identifier {
            event["safety_identifier"] = identifier.as_str().into();
        }
        written(&event)
    }

    fn event(&self, what: &str, image: &ImageData, format: ImageFormat, size: Value) -> Value {
        let family = match self.asked.call {
            Call::Generations => "image_generation",
            Call::Edits | Call::Variations => "image_edit",
        };
        json!({
            "type": format!("{family}.{what}"),
            "b64_json": image.to_base64(),
            "created_at": now(),
            "size": size,
            "quality": self.asked.quality,
            "background": "opaque",
            "output_format": format,
        })
    }
}

fn written(event: &Value) -> String {
    format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())
}
