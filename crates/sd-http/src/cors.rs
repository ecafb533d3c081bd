//! Which pages of other origins may use the worker.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, VARY,
};
use http::uri::Uri;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use operations_contract::ErrorCode;

use crate::body::{ResponseBody, full};
use crate::error::ApiError;
use crate::gate;
use crate::route::Route;

const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, Last-Event-ID, Idempotency-Key, If-None-Match, Traceparent, X-Request-Id",
);
const RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "ETag, Idempotent-Replayed, Location, Retry-After, X-Job-Id, X-Request-Id, X-Seed",
);
/// How long a browser remembers the answer, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// The origins whose pages may use the worker; by default none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CorsOrigins {
    origins: Vec<String>,
    any: bool,
}

/// What was given is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no origin: one is `https://example.org` or `http://localhost:5173`, without a path, or `*`"
)]
pub struct InvalidOrigin(String);

impl CorsOrigins {
    /// Takes origins, or `*` for all of them.
    pub fn new<'a>(origins: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidOrigin> {
        let mut cors = Self::default();
        for given in origins {
            match given {
                "*" => cors.any = true,
                _ => cors.origins.push(origin(given).ok_or_else(|| InvalidOrigin(given.into()))?),
            }
        }
        Ok(cors)
    }

    /// Whether all pages may.
    pub fn is_any(&self) -> bool {
        self.any
    }

    pub(crate) fn allows(&self, origin: &str) -> bool {
        self.any || self.origins.iter().any(|allowed| allowed == origin)
    }

    fn is_none(&self) -> bool {
        !self.any && self.origins.is_empty()
    }

    /// Answers a browser that asks whether a page may send its request. `None`: this is something else.
    pub(crate) fn preflight<B>(
        &self,
        request: &Request<B>,
    ) -> Option<Result<Response<ResponseBody>, ApiError>> {
        let asks = *request.method() == Method::OPTIONS
            && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let origin = gate::origin(request.headers()).filter(|_| asks && !self.is_none())?;
        if !self.allows(origin) {
            return Some(Err(ApiError::new(
                ErrorCode::Forbidden,
                "pages of this origin may not use the worker",
            )));
        }
        let Some(route) = Route::of(request.uri().path()) else {
            return Some(Err(ApiError::new(ErrorCode::NotFound, "there is nothing at this address")));
        };
        let mut response = Response::new(full(""));
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(route.allowed()));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        Some(Ok(response))
    }

    /// Lets the page read the answer, errors too.
    pub(crate) fn mark(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if self.is_none() {
            return;
        }
        // Caches must not hand what one origin got to another.
        headers.append(VARY, HeaderValue::from_static("Origin"));
        let allowed = origin.filter(|origin| origin.to_str().is_ok_and(|origin| self.allows(origin)));
        if let Some(origin) = allowed {
            let told = if self.any { HeaderValue::from_static("*") } else { origin.clone() };
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, told);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
        }
    }
}

/// As browsers write it: scheme and authority, in lower case, without a path.
fn origin(given: &str) -> Option<String> {
    let uri: Uri = given.parse().ok()?;
    let scheme = uri.scheme_str()?;
    let authority = uri.authority()?.as_str();
    let bare = format!("{scheme}://{authority}");
    let whole = given.eq_ignore_ascii_case(&bare) && !authority.contains('@');
    whole.then(|| bare.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_schemes_and_hosts() {
        let cors = CorsOrigins::new(["https://Example.org", "http://localhost:5173"]).unwrap();
        assert!(cors.allows("https://example.org") && cors.allows("http://localhost:5173"));
        for other in ["http://example.org", "https://example.org:8443", "https://a.example.org", "null", "?"]
        {
            assert!(!cors.allows(other), "{other}");
        }
        assert!(CorsOrigins::new(["*"]).unwrap().allows("https://example.org"));
        for broken in
            ["example.org", "https://example.org/", "https://a@example.org", "null", "", "https://*.org/x"]
        {
            assert!(CorsOrigins::new([broken]).is_err(), "{broken}");
        }
    }
}
