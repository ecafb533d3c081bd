//! `DELETE /v1/jobs/{id}`

use http::{Response, StatusCode};
use operations_contract::CancelView;

use crate::api::Api;
use crate::body::{ResponseBody, json};
use crate::caller::Caller;
use crate::error::ApiError;

pub(crate) fn handle(api: &Api, id: &str, caller: &Caller) -> Result<Response<ResponseBody>, ApiError> {
    let job_id = caller.job(api, id)?.job_id;
    let state = api.router().cancel(&job_id).map_err(|error| ApiError::from_cancel(error, id))?;
    // A running job ends before its next step: the request is accepted, not yet done.
    let status = if state.is_terminal() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(json(status, &CancelView { job_id, state }))
}
