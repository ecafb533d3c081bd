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
use crate::idempotency;
use crate::intake::Upload;
use crate::submission::{self, Translated};
use crate::wait;

/// Fields that say how the answer looks, and nothing about the job.
const ABOUT_THE_ANSWER: [&str; 2] = ["send_images", "include_init_images"];

pub(crate) async fn handle(
    api: &Api,
    kind: Kind,
    caller: &Caller,
    key: Option<String>,
    body: Upload,
) -> Result<Response<ResponseBody>, ApiError> {
    let router = api.router().clone();
    let settings = api.a1111().settings(caller);
    let translate = move |body: Bytes| {
        let fields = super::object(&body)?;
        let named = fields.get("override_settings").and_then(|settings| settings.get("sd_model_checkpoint"));
        let named = named.and_then(Value::as_str).map(checkpoint).or(settings.model.as_deref());
        let model = submission::model(&router, named);
        let fingerprint = idempotency::fingerprint(kind.name(), &fields, &ABOUT_THE_ANSWER, &[]);
        let (operation, asked) = request::translate(kind, &fields, settings, model.as_deref());
        Ok(Translated { operation, asked, fingerprint })
    };
    let submitted = submission::submit(api, caller, key, body, translate).await;
    let (accepted, asked) = submitted.map_err(|error| error.renamed(request::their_name))?;
    let (id, repeated) = (accepted.job_id, accepted.repeated);
    api.a1111().add(api, caller, id.clone());
    let mut response = match wait::end_of(api, &id).await {
        Ok(images) => answer::pictures(api, &id, &images, asked).await?,
        // The web UI gives what it has got so far, which here is nothing.
        Err(error) if error.code() == ErrorCode::Cancelled => answer::pictures(api, &id, &[], asked).await?,
        Err(error) => error.respond(error_body),
    };
    wait::name_job(response.headers_mut(), &id);
    idempotency::mark(response.headers_mut(), repeated);
    Ok(response)
}
