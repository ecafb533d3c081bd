//! `GET /health`: the process lives. Always 200.

use http::{Response, StatusCode};

use crate::body::{self, ResponseBody};
use crate::views::Health;

pub(crate) fn handle() -> Response<ResponseBody> {
    body::json(StatusCode::OK, &Health { status: "ok" })
}
