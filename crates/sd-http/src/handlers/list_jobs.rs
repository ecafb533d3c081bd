//! `GET /v1/jobs`

use http::{Response, StatusCode};
use operations_contract::JobList;

use crate::api::Api;
use crate::body::{ResponseBody, json};

pub(crate) fn handle(api: &Api) -> Response<ResponseBody> {
    json(StatusCode::OK, &JobList { jobs: api.router().jobs() })
}
