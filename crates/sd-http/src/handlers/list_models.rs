//! `GET /v1/models`

use http::{Response, StatusCode};
use operations_contract::ModelList;

use crate::api::Api;
use crate::body::{ResponseBody, json};

pub(crate) fn handle(api: &Api) -> Response<ResponseBody> {
    let models = api.router().models().iter().map(|model| model.view()).collect();
    json(StatusCode::OK, &ModelList { models })
}
