//! `GET /v1/jobs`

use http::{Response, StatusCode};
use operations_contract::JobList;

use crate::api::Api;
use crate::body::{ResponseBody, json};
use crate::caller::Caller;

pub(crate) fn handle(api: &Api, caller: &Caller) -> Response<ResponseBody> {
    let jobs = api.router().jobs().into_iter().filter(|job| caller.may_see(job)).collect();
    json(StatusCode::OK, &JobList { jobs })
}
