//! The interfaces of other programs that the worker answers to, and the form in which each tells errors.

use http::Response;
use http::header::{HeaderValue, WWW_AUTHENTICATE};

use crate::body::ResponseBody;
use crate::error::ApiError;
use crate::route::Route;
use crate::{a1111, openai};

/// Which interfaces of other programs are answered; the addresses of the others are unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Faces {
    /// OpenAI's images: `/v1/images/...`, and its fields in `/v1/models`.
    pub openai: bool,
    /// The API of AUTOMATIC1111's web UI: `/sdapi/v1/...`.
    pub a1111: bool,
}

impl Default for Faces {
    fn default() -> Self {
        Self { openai: true, a1111: true }
    }
}

impl Faces {
    /// Whether an address is answered at all.
    pub(crate) fn show(self, route: &Route<'_>) -> bool {
        match route {
            Route::OpenAi(_) => self.openai,
            Route::A1111(_) => self.a1111,
            _ => true,
        }
    }
}

/// How an error is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Own,
    OpenAi,
    A1111,
}

impl Form {
    /// The form at this address, also where there is nothing.
    pub(crate) fn at(path: &str, faces: Faces) -> Self {
        let openai =
            path.starts_with("/v1/images/") || path == "/v1/models" || path.starts_with("/v1/models/");
        match path {
            _ if faces.openai && openai => Self::OpenAi,
            _ if faces.a1111 && path.starts_with(a1111::PREFIX) => Self::A1111,
            _ => Self::Own,
        }
    }

    pub(crate) fn tell(self, error: ApiError) -> Response<ResponseBody> {
        match self {
            Self::Own => error.into_response(),
            Self::OpenAi => error.respond(openai::error_body),
            Self::A1111 => {
                let mut response = error.respond(a1111::error_body);
                if response.headers().contains_key(WWW_AUTHENTICATE) {
                    let basic = HeaderValue::from_static("Basic realm=\"sd-worker\"");
                    response.headers_mut().insert(WWW_AUTHENTICATE, basic);
                }
                response
            }
        }
    }
}
