//! `GET /v1/models/{id}`

use http::{Response, StatusCode};
use operations_contract::ErrorCode;

use crate::api::Api;
use crate::body::{ResponseBody, json};
use crate::error::ApiError;

pub(crate) fn handle(api: &Api, id: &str) -> Result<Response<ResponseBody>, ApiError> {
    match api.router().find_model(id) {
        Some(model) => Ok(json(StatusCode::OK, &model.view())),
        None => Err(ApiError::new(ErrorCode::ModelNotFound, "there is no such model on this worker")),
    }
}
