//! `POST /sdapi/v1/txt2img`, `img2img`

use bytes::Bytes;
use http::Response;
use operations_contract::ErrorCode;
use serde_json::Value;

use super::request::{self, Kind};
use super::settings::checkpoint;
use super::{answer, error_body};
use crate::api::Api;
use crate::body::ResponseBody;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::intake::Upload;
use crate::submission;
use crate::wait;

pub(crate) async fn handle(
    api: &Api,
    kind: Kind,
    caller: &Caller,
    body: Upload,
) -> Result<Response<ResponseBody>, ApiError> {
    let router = api.router().clone();
    let settings = api.a1111().settings(caller);
    let translate = move |body: Bytes| {
        let fields = super::object(&body)?;
        let named = fields.get("override_settings").and_then(|settings| settings.get("sd_model_checkpoint"));
        let named = named.and_then(Value::as_str).map(checkpoint).or(settings.model.as_deref());
        let model = submission::model(&router, named);
        Ok(request::translate(kind, &fields, settings, model.as_deref()))
    };
    let submitted = submission::submit(api, caller, body, translate).await;
    let (accepted, asked) = submitted.map_err(|error| error.renamed(request::their_name))?;
    let id = accepted.job_id;
    api.a1111().add(api, caller, id.clone());
    let mut response = match wait::end_of(api, &id).await {
        Ok(images) => answer::pictures(api, &id, &images, asked).await?,
        // The web UI gives what it has got so far, which here is nothing.
        Err(error) if error.code() == ErrorCode::Cancelled => answer::pictures(api, &id, &[], asked).await?,
        Err(error) => error.respond(error_body),
    };
    wait::name_job(response.headers_mut(), &id);
    Ok(response)
}
