//! `GET /v1/jobs/{id}`

use http::{Response, StatusCode};
use operations_contract::JobId;

use crate::api::Api;
use crate::body::{ResponseBody, json};
use crate::error::ApiError;

pub(crate) fn handle(api: &Api, id: &str) -> Result<Response<ResponseBody>, ApiError> {
    let job = api.router().job(&JobId::new(id)).ok_or_else(|| ApiError::no_job(id))?;
    Ok(json(StatusCode::OK, &job))
}
