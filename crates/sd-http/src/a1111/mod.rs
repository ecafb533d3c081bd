//! The API of AUTOMATIC1111's web UI, `/sdapi/v1/...`, as its clients use it.
//!
//! A request for pictures is translated into an [`Operation`](operations_contract::Operation) and goes the way of all
//! others; the rest tells about this worker in the web UI's words. Names and forms of fields are those of
//! `modules/api/models.py` and `modules/processing.py` of the web UI, version 1.10.

mod answer;
mod auth;
mod controlnet;
mod echo;
mod extras;
mod generate;
mod hires;
mod img2img;
mod listings;
mod names;
mod options;
mod payload;
mod png_info;
mod progress;
mod prompt;
mod refiner;
mod request;
pub(crate) mod schema;
mod settings;
mod state;
pub(crate) mod views;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Body;
use operations_contract::{ErrorCode, ErrorDetail, FieldError};
use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::body::{self, BodyKind, BoxError, ResponseBody};
use crate::caller::Caller;
use crate::error::ApiError;
use crate::intake::Upload;
use crate::{idempotency, submission};

pub(crate) use auth::take_basic_as_bearer;
pub(crate) use listings::List;
pub(crate) use request::Kind;
pub(crate) use state::State;

/// What all addresses begin with.
pub(crate) const PREFIX: &str = "/sdapi/";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Generate(Kind),
    Enlarge,
    PngInfo,
    Interrupt,
    Options,
    Progress,
    /// Reads lists anew, which here are never out of date.
    Refresh,
    List(List),
}

/// What stands behind `/sdapi/v1/`, and what it asks for.
pub(crate) const CALLS: &[(&str, Call)] = &[
    ("txt2img", Call::Generate(Kind::Txt2Img)),
    ("img2img", Call::Generate(Kind::Img2Img)),
    ("extra-single-image", Call::Enlarge),
    ("progress", Call::Progress),
    ("interrupt", Call::Interrupt),
    ("skip", Call::Interrupt),
    ("options", Call::Options),
    ("png-info", Call::PngInfo),
    ("samplers", Call::List(List::Samplers)),
    ("schedulers", Call::List(List::Schedulers)),
    ("sd-models", Call::List(List::SdModels)),
    ("loras", Call::List(List::Loras)),
    ("upscalers", Call::List(List::Upscalers)),
    ("latent-upscale-modes", Call::List(List::LatentUpscaleModes)),
    ("embeddings", Call::List(List::Embeddings)),
    ("scripts", Call::List(List::Scripts)),
    ("sd-vae", Call::List(List::Empty)),
    ("hypernetworks", Call::List(List::Empty)),
    ("face-restorers", Call::List(List::Empty)),
    ("realesrgan-models", Call::List(List::Empty)),
    ("prompt-styles", Call::List(List::Empty)),
    ("extensions", Call::List(List::Empty)),
    ("script-info", Call::List(List::Empty)),
    ("refresh-checkpoints", Call::Refresh),
    ("refresh-vae", Call::Refresh),
    ("refresh-loras", Call::Refresh),
];

impl Call {
    pub(crate) fn of(name: &str) -> Option<Self> {
        CALLS.iter().find(|(known, _)| *known == name).map(|(_, call)| *call)
    }

    pub(crate) fn allowed(self) -> &'static str {
        match self {
            Self::Generate(_) | Self::Enlarge | Self::PngInfo | Self::Interrupt | Self::Refresh => "POST",
            Self::Options => "GET, HEAD, POST",
            Self::Progress | Self::List(_) => "GET, HEAD",
        }
    }
}

pub(crate) async fn handle<B>(
    api: &Api,
    call: Call,
    caller: &Caller,
    request: Request<B>,
) -> Result<Response<ResponseBody>, ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    match call {
        Call::Generate(kind) => {
            let (key, body) = submission::counted(api, keyed_upload(api, request).await)?;
            generate::handle(api, kind, caller, key, body).await
        }
        Call::Enlarge => {
            let (key, body) = submission::counted(api, keyed_upload(api, request).await)?;
            extras::handle(api, caller, key, body).await
        }
        Call::PngInfo => {
            let body = upload(api, request).await?;
            api.intake().work(body, |body| png_info::handle(&object(&body)?)).await
        }
        Call::Options if request.method() == Method::POST => {
            let body = upload(api, request).await?;
            let options = api.intake().work(body, |body| object(&body)).await?;
            options::set(api, caller, &options)
        }
        Call::Options => Ok(options::show(api, caller)),
        Call::Progress => progress::handle(api, caller, request.uri()),
        Call::Interrupt => {
            progress::interrupt(api, caller).await?;
            Ok(body::json(StatusCode::OK, &json!({})))
        }
        Call::Refresh => Ok(body::json(StatusCode::OK, &Value::Null)),
        Call::List(list) => Ok(list.show(api)),
    }
}

/// The body of a submission, and the key that it was sent with.
async fn keyed_upload<B>(api: &Api, request: Request<B>) -> Result<(Option<String>, Upload), ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    Ok((idempotency::key(request.headers())?, upload(api, request).await?))
}

async fn upload<B>(api: &Api, request: Request<B>) -> Result<Upload, ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    match body::kind(request.headers())? {
        BodyKind::Json => api.intake().read(request.into_body()).await,
        BodyKind::Form(_) => {
            let message = "Content-Type is multipart/form-data: send application/json";
            Err(ApiError::new(ErrorCode::UnsupportedMediaType, message))
        }
    }
}

fn object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    match body::parse_json(body)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(ApiError::invalid(vec![FieldError::new("body", "must be a JSON object")])),
    }
}

/// An error in the form that the web UI's own have.
pub(crate) fn error_body(detail: ErrorDetail) -> views::Refusal {
    detail.into()
}
