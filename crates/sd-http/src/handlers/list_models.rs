//! `GET /v1/models`

use http::{Response, StatusCode};
use operations_contract::ModelList;

use crate::api::Api;
use crate::body::{ResponseBody, json};
use crate::openai;

pub(crate) fn handle(api: &Api) -> Response<ResponseBody> {
    let models = api.router().models().iter().map(|model| model.view()).collect();
    let list = ModelList { models };
    match api.config().faces.openai {
        true => json(StatusCode::OK, &openai::model_list(list, api.started())),
        false => json(StatusCode::OK, &list),
    }
}
