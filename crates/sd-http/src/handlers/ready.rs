//! `GET /ready`: a model can serve. Otherwise 503 with the reason.

use http::{Response, StatusCode};
use serde_json::json;

use crate::api::Api;
use crate::body::{self, ResponseBody};
use crate::error::ApiError;

pub(crate) fn handle(api: &Api) -> Result<Response<ResponseBody>, ApiError> {
    let model = api.router().readiness()?;
    Ok(body::json(StatusCode::OK, &json!({"status": "ready", "model": model.id})))
}
