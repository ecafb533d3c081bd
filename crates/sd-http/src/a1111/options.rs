//! `GET` and `POST /sdapi/v1/options`: each caller's own settings.

use http::{Response, StatusCode};
use operations_contract::{ErrorCode, ErrorDetail, FieldError};
use serde_json::{Map, Value};

use crate::api::Api;
use crate::body::{self, ResponseBody};
use crate::caller::Caller;
use crate::error::ApiError;

pub(crate) fn show(api: &Api, caller: &Caller) -> Response<ResponseBody> {
    let model = api.router().readiness().ok();
    body::json(StatusCode::OK, &api.a1111().settings(caller).show(model.as_deref()))
}

pub(crate) fn set(
    api: &Api,
    caller: &Caller,
    options: &Map<String, Value>,
) -> Result<Response<ResponseBody>, ApiError> {
    let mut settings = api.a1111().settings(caller);
    let mut faults = Vec::new();
    settings.set_all(options, "", &mut faults);
    if !faults.is_empty() {
        return Err(ApiError::invalid(faults));
    }
    let named = options.get("sd_model_checkpoint").and(settings.model.as_deref());
    if let Some(name) = named.filter(|name| api.router().find_model(name).is_none()) {
        let message = "is not on this worker: `sd-models` lists what there is";
        let fault = FieldError::new("sd_model_checkpoint", message).with_value(name);
        return Err(ErrorDetail::about_fields(ErrorCode::ModelNotFound, vec![fault]).into());
    }
    api.a1111().keep_settings(caller, settings);
    Ok(body::json(StatusCode::OK, &Value::Null))
}
