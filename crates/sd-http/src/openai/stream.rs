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
use serde::Serialize;

use super::answer::{now, size};
use super::request::Asked;
use super::views::{ErrorEvent, ImageEvent, Usage};
use super::{Call, error};
use crate::api::Api;
use crate::body::ResponseBody;
use crate::error::ApiError;

pub(crate) async fn answer(api: &Api, id: &JobId, asked: Asked) -> Result<Response<ResponseBody>, ApiError> {
    let wanted = id.clone();
    let updates = api.blocking(move |router| router.subscribe(&wanted, 0)).await?;
    let mut updates = updates.ok_or_else(|| ApiError::no_job(id.as_str()))?;
    let keep_alive = api.config().keep_alive;
    let mut events = Events { asked, size: None, partial: 0 };
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
    size: Option<String>,
    partial: u64,
}

impl Events {
    /// No event, one, or one for each picture.
    fn of(&mut self, event: JobEvent) -> String {
        match event {
            JobEvent::Started { width, height, .. } => {
                self.size = Some(size(width, height));
                String::new()
            }
            JobEvent::Preview { image, format, .. } if self.partial < self.asked.partial_images => {
                let mut event = self.event("partial_image", &image, format, self.size.clone());
                event.partial_image_index = Some(self.partial);
                self.partial += 1;
                written(&event.r#type, &event)
            }
            JobEvent::Complete { images, .. } => images.iter().map(|image| self.completed(image)).collect(),
            JobEvent::Error(detail) => {
                let event = ErrorEvent { r#type: "error", error: error(detail) };
                written(event.r#type, &event)
            }
            _ => String::new(),
        }
    }

    fn completed(&self, image: &EventImage) -> String {
        let size = size(image.width, image.height);
        let mut event = self.event("completed", &image.image, image.format, Some(size));
        event.seed = Some(image.seed);
        event.usage = Some(Usage::default());
        event.safety_identifier = self.asked.identifier.clone();
        written(&event.r#type, &event)
    }

    fn event(&self, what: &str, image: &ImageData, format: ImageFormat, size: Option<String>) -> ImageEvent {
        let family = match self.asked.call {
            Call::Generations => "image_generation",
            Call::Edits | Call::Variations => "image_edit",
        };
        ImageEvent {
            r#type: format!("{family}.{what}"),
            b64_json: image.to_base64(),
            created_at: now(),
            size,
            quality: self.asked.quality.clone(),
            background: "opaque",
            output_format: format,
            partial_image_index: None,
            seed: None,
            usage: None,
            safety_identifier: None,
        }
    }
}

fn written(name: &str, event: &impl Serialize) -> String {
    // Events are plain data: they always serialize.
    format!("event: {name}\ndata: {}\n\n", serde_json::to_string(event).unwrap_or_default())
}
