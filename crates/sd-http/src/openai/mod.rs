//! OpenAI's images: `POST /v1/images/generations`, `edits` and `variations`, as its clients send them.
//!
//! Each is translated into an [`Operation`](operations_contract::Operation) and goes the way of all others. The fields and answers are those that
//! the `openai` package for Python knows (`openai.types.images_response`, `image_generate_params` and their
//! neighbours), which also is what they are tested with.

mod answer;
mod fields;
mod form;
mod models;
mod request;
pub(crate) mod schema;
mod stream;
pub(crate) mod views;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use hyper::body::Body;
use operations_contract::{ErrorDetail, FieldError};
use serde_json::Value;

use crate::api::Api;
use crate::body::{BoxError, ResponseBody};
use crate::caller::Caller;
use crate::error::ApiError;
use crate::idempotency;
use crate::submission::{self, Translated};
use crate::wait;

pub(crate) use answer::now;
pub(crate) use models::{model, model_list};

/// Tells OpenAI's clients not to send the same request again: a job that failed would fail again.
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// One of the three ways to ask for pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Generations,
    Edits,
    Variations,
}

impl Call {
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name {
            "generations" => Some(Self::Generations),
            "edits" => Some(Self::Edits),
            "variations" => Some(Self::Variations),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Generations => "generations",
            Self::Edits => "edits",
            Self::Variations => "variations",
        }
    }
}

pub(crate) async fn handle<B>(
    api: &Api,
    call: Call,
    caller: &Caller,
    request: Request<B>,
) -> Result<Response<ResponseBody>, ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let config = api.config();
    let origin = answer::origin(request.headers(), config.https);
    let max_part_bytes = config.max_part_bytes;
    let read = async {
        let kind = form::kind(call, request.headers())?;
        let key = idempotency::key(request.headers())?;
        Ok((kind, key, api.intake().read(request.into_body()).await?))
    };
    let (kind, key, body) = submission::counted(api, read.await)?;
    let router = api.router().clone();
    let translate = move |body| {
        let form = form::read(body, kind, max_part_bytes)?;
        let name = form.fields.get("model").and_then(Value::as_str);
        let model = submission::model(&router, name);
        let fingerprint = form.fingerprint(call);
        let (operation, asked) = request::translate(call, form, model.as_deref());
        Ok(Translated { operation, asked, fingerprint })
    };
    let submitted = submission::submit(api, caller, key, body, translate).await;
    let (accepted, asked) = submitted.map_err(|error| error.renamed(request::their_name))?;
    let (id, repeated) = (accepted.job_id, accepted.repeated);
    let mut response = match asked.stream {
        true => stream::answer(api, &id, asked).await?,
        false => match wait::end_of(api, &id).await {
            Ok(images) => answer::images(&id, &images, &asked, origin.as_deref()),
            Err(error) => {
                let mut response = error.respond(error_body);
                response.headers_mut().insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
                response
            }
        },
    };
    wait::name_job(response.headers_mut(), &id);
    idempotency::mark(response.headers_mut(), repeated);
    Ok(response)
}

/// An error in OpenAI's form, which ours is a part of: `type` and `param` stand beside `code`, `message` and `fields`.
pub(crate) fn error_body(detail: ErrorDetail) -> views::ErrorBody {
    views::ErrorBody { error: error(detail) }
}

fn error(ours: ErrorDetail) -> views::Error {
    use operations_contract::ErrorCode as Code;
    let r#type = match ours.code {
        Code::QueueFull => "rate_limit_error",
        Code::OutOfMemory
        | Code::InferenceFailed
        | Code::ShuttingDown
        | Code::NotReady
        | Code::StorageFull
        | Code::StorageFailed
        | Code::Timeout => "server_error",
        _ => "invalid_request_error",
    };
    let param = ours.fields.first().map(|fault: &FieldError| fault.field.clone());
    views::Error { ours, r#type, param }
}

#[cfg(test)]
mod tests {
    use operations_contract::ErrorCode;
    use serde_json::json;

    use super::*;

    fn told(detail: ErrorDetail) -> Value {
        serde_json::to_value(error_body(detail)).unwrap()
    }

    #[test]
    fn an_error_has_both_forms_at_once() {
        let fault = FieldError::new("n", "9 is outside 1..=8").with_value(9);
        let body = told(ErrorDetail::about_fields(ErrorCode::InvalidRequest, vec![fault]));
        assert_eq!(
            body,
            json!({"error": {
                "code": "invalid_request", "type": "invalid_request_error", "param": "n",
                "message": "n: 9 is outside 1..=8",
                "fields": [{"field": "n", "value": 9, "message": "9 is outside 1..=8"}],
            }})
        );
        for code in [ErrorCode::StorageFull, ErrorCode::Timeout] {
            assert_eq!(told(ErrorDetail::new(code, "x"))["error"]["type"], "server_error");
        }
        let body = told(ErrorDetail::new(ErrorCode::QueueFull, "full"));
        assert_eq!(
            (&body["error"]["type"], &body["error"]["param"]),
            (&json!("rate_limit_error"), &Value::Null)
        );
    }
}
