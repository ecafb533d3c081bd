//! `GET /v1/models/{id}`

use http::{Response, StatusCode};
use operations_contract::ErrorCode;
use percent_encoding::percent_decode_str;

use crate::api::Api;
use crate::body::{ResponseBody, json};
use crate::error::ApiError;
use crate::openai;

pub(crate) fn handle(api: &Api, id: &str) -> Result<Response<ResponseBody>, ApiError> {
    // Clients write the slash in an id as `%2F`.
    let id = percent_decode_str(id).decode_utf8_lossy();
    match api.router().find_model(&id) {
        Some(model) => Ok(match api.config().faces.openai {
            true => json(StatusCode::OK, &openai::model(model.view(), api.started())),
            false => json(StatusCode::OK, &model.view()),
        }),
        None => Err(ApiError::new(ErrorCode::ModelNotFound, "there is no such model on this worker")),
    }
}
