//! Who asks, and what they may.

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use operations_contract::{ErrorCode, JobId, JobView};
use sd_engine::SubmitOptions;

use crate::api::Api;
use crate::error::ApiError;

/// What a token opens beside the models and `/v1/info`, which every token opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// To submit jobs; to follow and cancel one's own.
    Generate,
    /// Everybody's jobs, and what concerns the worker itself.
    Admin,
}

impl Scope {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Admin => "admin",
        }
    }
}

/// The scopes of one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Scopes {
    generate: bool,
    admin: bool,
}

impl Scopes {
    pub(crate) const ALL: Self = Self { generate: true, admin: true };
    pub(crate) const GENERATE: Self = Self { generate: true, admin: false };

    /// Reads `generate`, `admin` or both with a comma between them; `None` for anything else.
    pub(crate) fn parse(list: &str) -> Option<Self> {
        let mut scopes = Self::default();
        for name in list.split(',') {
            match name.trim() {
                "generate" => scopes.generate = true,
                "admin" => scopes.admin = true,
                _ => return None,
            }
        }
        Some(scopes)
    }

    pub(crate) fn contain(self, scope: Scope) -> bool {
        match scope {
            Scope::Generate => self.generate,
            Scope::Admin => self.admin,
        }
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [Scope::Generate, Scope::Admin].into_iter().filter(|scope| self.contain(*scope));
        f.write_str(&names.map(Scope::name).collect::<Vec<_>>().join(","))
    }
}

/// The sender of a request, once the gate has let it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The name of the token.
    name: Option<Arc<str>>,
    scopes: Scopes,
    /// The trace that its request is a part of.
    trace_parent: Option<Arc<str>>,
    /// What its request is called.
    request_id: Option<Arc<str>>,
}

impl Caller {
    pub(crate) fn new(name: Option<Arc<str>>, scopes: Scopes) -> Self {
        Self { name, scopes, trace_parent: None, request_id: None }
    }

    /// With the trace that its request is a part of.
    pub(crate) fn within(self, trace_parent: Option<Arc<str>>) -> Self {
        Self { trace_parent, ..self }
    }

    /// With what its request is called.
    pub(crate) fn asking(self, request_id: &HeaderValue) -> Self {
        Self { request_id: request_id.to_str().ok().map(Arc::from), ..self }
    }

    /// Everybody, where there are no tokens: whoever can connect may do everything.
    pub(crate) fn anybody() -> Self {
        Self::new(None, Scopes::ALL)
    }

    /// Who shows no token where there are some: for addresses that want none.
    pub(crate) fn nobody() -> Self {
        Self::new(None, Scopes::default())
    }

    /// What goes with a job of this caller.
    pub(crate) fn submits(&self) -> SubmitOptions {
        SubmitOptions::by(self.name.clone())
            .within(self.trace_parent.clone())
            .asked_by(self.request_id.clone())
    }

    /// The name of the token.
    pub(crate) fn name(&self) -> Option<Arc<str>> {
        self.name.clone()
    }

    pub(crate) fn must_have(&self, scope: Scope) -> Result<(), ApiError> {
        if self.scopes.contain(scope) {
            return Ok(());
        }
        let message = format!("this needs the scope `{}`; the token has {}", scope.name(), self.scopes);
        Err(ApiError::new(ErrorCode::Forbidden, message))
    }

    /// Whether the job is the caller's own, or everybody's are its business.
    fn may_see(&self, job: &JobView) -> bool {
        self.scopes.admin || (self.name.is_some() && job.caller.as_deref() == self.name.as_deref())
    }

    /// Whose jobs it may see, if not everybody's. One without a name has none.
    pub(crate) fn only(&self) -> Option<String> {
        let own = || self.name.as_deref().unwrap_or_default().to_owned();
        (!self.scopes.admin).then(own)
    }

    /// The job of this name. That of another caller is told to be missing, so that nobody learns what there is.
    pub(crate) async fn job(&self, api: &Api, id: &str) -> Result<JobView, ApiError> {
        let wanted = JobId::new(id);
        let job = api.blocking(move |router| router.job(&wanted)).await?;
        job.filter(|job| self.may_see(job)).ok_or_else(|| ApiError::no_job(id))
    }
}
