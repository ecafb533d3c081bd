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
mod settings;
mod state;

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

pub(crate) use auth::take_basic_as_bearer;
pub(crate) use state::State;

/// What all addresses begin with.
pub(crate) const PREFIX: &str = "/sdapi/";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Generate(request::Kind),
    Enlarge,
    PngInfo,
    Interrupt,
    Options,
    Progress,
    /// Reads lists anew, which here are never out of date.
    Refresh,
    List(listings::List),
}

impl Call {
    pub(crate) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "txt2img" => Self::Generate(request::Kind::Txt2Img),
            "img2img" => Self::Generate(request::Kind::Img2Img),
            "extra-single-image" => Self::Enlarge,
            "png-info" => Self::PngInfo,
            "interrupt" | "skip" => Self::Interrupt,
            "options" => Self::Options,
            "progress" => Self::Progress,
            "refresh-checkpoints" | "refresh-vae" | "refresh-loras" => Self::Refresh,
            other => Self::List(listings::List::of(other)?),
        })
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
            let body = upload(api, request).await?;
            generate::handle(api, kind, caller, body).await
        }
        Call::Enlarge => {
            let body = upload(api, request).await?;
            extras::handle(api, caller, body).await
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
        Call::List(list) => Ok(body::json(StatusCode::OK, &list.show(api))),
    }
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

/// An error in the form that the web UI's own have, with our fields beside.
pub(crate) fn error_body(detail: ErrorDetail) -> Value {
    json!({
        "error": detail.code,
        "detail": detail.message,
        "body": "",
        "errors": detail.message,
        "fields": detail.fields,
    })
}
