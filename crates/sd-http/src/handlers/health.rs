//! `GET /health`: the process lives. Always 200.

use http::{Response, StatusCode};
use serde_json::json;

use crate::body::{self, ResponseBody};

pub(crate) fn handle() -> Response<ResponseBody> {
    body::json(StatusCode::OK, &json!({"status": "ok"}))
}
