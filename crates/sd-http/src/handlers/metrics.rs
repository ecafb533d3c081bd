//! `GET /metrics`

use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use operations_contract::ErrorCode;

use crate::api::Api;
use crate::body::{ResponseBody, full};
use crate::error::ApiError;

pub(crate) fn handle(api: &Api) -> Result<Response<ResponseBody>, ApiError> {
    let config = api.config();
    let Some(metrics) = &config.metrics else {
        return Err(ApiError::new(ErrorCode::NotFound, "this worker keeps no metrics"));
    };
    let mut response = Response::new(full(metrics.render(api.router(), &config.version)));
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    Ok(response)
}
