//! `POST /v1/models/{id}/load` and `.../unload`: 200 when it is so already, else 202; it happens when nothing runs.

use http::{Response, StatusCode};
use operations_contract::ModelState;

use crate::api::Api;
use crate::body::{ResponseBody, json};
use crate::error::ApiError;

pub(crate) fn load(api: &Api, id: &str) -> Result<Response<ResponseBody>, ApiError> {
    let model = api.router().load_model(id)?;
    Ok(json(accepted(model.state == ModelState::Loaded), &model.view()))
}

pub(crate) fn unload(api: &Api, id: &str) -> Result<Response<ResponseBody>, ApiError> {
    let model = api.router().unload_model(id)?;
    Ok(json(accepted(model.state == ModelState::Unloaded), &model.view()))
}

fn accepted(already: bool) -> StatusCode {
    if already { StatusCode::OK } else { StatusCode::ACCEPTED }
}
