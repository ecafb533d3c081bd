//! `GET /v1/jobs/{id}`

use http::{Response, StatusCode};

use crate::api::Api;
use crate::body::{ResponseBody, json};
use crate::caller::Caller;
use crate::error::ApiError;

pub(crate) fn handle(api: &Api, id: &str, caller: &Caller) -> Result<Response<ResponseBody>, ApiError> {
    Ok(json(StatusCode::OK, &caller.job(api, id)?))
}
