//! `GET /openapi.json`

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};

use crate::api::Api;
use crate::body::{ResponseBody, full};

pub(crate) fn handle(api: &Api) -> Response<ResponseBody> {
    let mut response = Response::new(full(Bytes::clone(api.document())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
