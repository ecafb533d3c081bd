//! `GET /ready`: a model can serve. Otherwise 503 with the reason.

use http::{Response, StatusCode};

use crate::api::Api;
use crate::body::{self, ResponseBody};
use crate::error::ApiError;
use crate::views::Ready;

pub(crate) fn handle(api: &Api) -> Result<Response<ResponseBody>, ApiError> {
    let model = api.router().readiness()?;
    Ok(body::json(StatusCode::OK, &Ready { status: "ready", model: model.id.clone() }))
}
