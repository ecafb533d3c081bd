//! Which address means what.

use http::Method;

use crate::caller::Scope;
use crate::{a1111, openai};

/// An address that the worker knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Jobs,
    Job(&'a str),
    JobStream(&'a str),
    JobImage(&'a str, usize),
    Models,
    Model(&'a str),
    ModelLoad(&'a str),
    ModelUnload(&'a str),
    Info,
    Health,
    Ready,
    OpenAi(openai::Call),
    A1111(a1111::Call),
    OpenApi,
    Metrics,
}

impl<'a> Route<'a> {
    pub(crate) fn of(path: &'a str) -> Option<Self> {
        // The id of a model may contain slashes.
        if let Some(id) = path.strip_prefix("/v1/models/").filter(|id| !id.is_empty()) {
            let named = |action: &str| id.strip_suffix(action).filter(|id| !id.is_empty());
            return Some(match (named("/load"), named("/unload")) {
                (Some(id), _) => Self::ModelLoad(id),
                (_, Some(id)) => Self::ModelUnload(id),
                _ => Self::Model(id),
            });
        }
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        Some(match segments[..] {
            ["health"] => Self::Health,
            ["ready"] => Self::Ready,
            ["openapi.json"] => Self::OpenApi,
            ["metrics"] => Self::Metrics,
            ["v1", "info"] => Self::Info,
            ["v1", "models"] => Self::Models,
            ["v1", "images", call] => Self::OpenAi(openai::Call::of(call)?),
            ["sdapi", "v1", call] => Self::A1111(a1111::Call::of(call)?),
            ["v1", "jobs"] => Self::Jobs,
            ["v1", "jobs", id] if !id.is_empty() => Self::Job(id),
            ["v1", "jobs", id, "stream"] => Self::JobStream(id),
            ["v1", "jobs", id, "images", index] => Self::JobImage(id, index.parse().ok()?),
            _ => return None,
        })
    }

    /// As the OpenAPI document has it: for metrics, where a path would be one among countless.
    pub(crate) fn pattern(self) -> &'static str {
        match self {
            Self::Jobs => "/v1/jobs",
            Self::Job(_) => "/v1/jobs/{id}",
            Self::JobStream(_) => "/v1/jobs/{id}/stream",
            Self::JobImage(..) => "/v1/jobs/{id}/images/{index}",
            Self::Models => "/v1/models",
            Self::Model(_) => "/v1/models/{id}",
            Self::ModelLoad(_) => "/v1/models/{id}/load",
            Self::ModelUnload(_) => "/v1/models/{id}/unload",
            Self::Info => "/v1/info",
            Self::Health => "/health",
            Self::Ready => "/ready",
            Self::OpenApi => "/openapi.json",
            Self::Metrics => "/metrics",
            Self::OpenAi(_) => "/v1/images/{call}",
            Self::A1111(_) => "/sdapi/v1/{call}",
        }
    }

    /// The methods that it answers to, as `Allow` has them.
    pub(crate) fn allowed(self) -> &'static str {
        match self {
            Self::Jobs => "GET, HEAD, POST",
            Self::Job(_) => "GET, HEAD, DELETE",
            // HEAD would have to wait for the end of the job.
            Self::JobStream(_) => "GET",
            Self::ModelLoad(_) | Self::ModelUnload(_) => "POST",
            Self::OpenAi(_) => "POST",
            Self::A1111(call) => call.allowed(),
            _ => "GET, HEAD",
        }
    }

    pub(crate) fn allows(self, method: &Method) -> bool {
        self.allowed().split(", ").any(|allowed| allowed == method.as_str())
    }

    /// What a caller needs for it.
    pub(crate) fn access(self, method: &Method) -> Access {
        match self {
            // Probes have no token, and the description of the API is no secret.
            Self::Health | Self::Ready | Self::OpenApi => Access::Open,
            Self::Jobs if *method == Method::POST => Access::Scope(Scope::Generate),
            Self::ModelLoad(_) | Self::ModelUnload(_) => Access::Scope(Scope::Admin),
            Self::OpenAi(_) | Self::A1111(_) => Access::Scope(Scope::Generate),
            // Of jobs each caller sees those that are its business.
            _ => Access::Token,
        }
    }
}

/// What a caller needs, where there are tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing.
    Open,
    /// Any token.
    Token,
    /// A token with this scope.
    Scope(Scope),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_known_or_not() {
        assert_eq!(Route::of("/v1/jobs"), Some(Route::Jobs));
        assert_eq!(Route::of("/v1/jobs/job-1"), Some(Route::Job("job-1")));
        assert_eq!(Route::of("/v1/jobs/job-1/stream"), Some(Route::JobStream("job-1")));
        assert_eq!(Route::of("/v1/jobs/job-1/images/3"), Some(Route::JobImage("job-1", 3)));
        assert_eq!(Route::of("/v1/models/stabilityai/sd-turbo"), Some(Route::Model("stabilityai/sd-turbo")));
        assert_eq!(
            Route::of("/v1/models/stabilityai/sd-turbo/load"),
            Some(Route::ModelLoad("stabilityai/sd-turbo"))
        );
        assert_eq!(Route::of("/v1/models/demo/unload"), Some(Route::ModelUnload("demo")));
        assert_eq!(Route::of("/v1/models/load"), Some(Route::Model("load")));
        for unknown in ["/", "/v1", "/v1/jobs/", "/v1/jobs/a/images/x", "/v1/jobs/a/b", "/v2/jobs", "*"] {
            assert_eq!(Route::of(unknown), None, "{unknown}");
        }
    }
}
