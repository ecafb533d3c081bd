//! The worker's HTTP face as a value: a request in, a response out.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use http::header::ORIGIN;
use http::{HeaderValue, Method, Request, Response};
use hyper::body::Body;
use operations_contract::ErrorCode;
use sd_engine::JobRouter;

use crate::body::{BoxError, ResponseBody};
use crate::config::ApiConfig;
use crate::error::ApiError;
use crate::faces::Form;
use crate::frames::Frames;
use crate::gate;
use crate::headers;
use crate::intake::Intake;
use crate::metrics;
use crate::request_id::{self, X_REQUEST_ID};
use crate::route::{Access, Route};
use crate::{a1111, handlers, openai, openapi, trace};

/// Answers requests. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Api(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    router: JobRouter,
    config: ApiConfig,
    intake: Intake,
    frames: Frames,
    a1111: a1111::State,
    /// When this was made, in seconds since 1970.
    started: u64,
    /// What `/openapi.json` answers: it never changes while the worker runs.
    document: OnceLock<Bytes>,
}

impl Api {
    /// Takes the front door of the engine.
    pub fn new(router: JobRouter, config: ApiConfig) -> Self {
        let intake = Intake::new(&config);
        let (frames, a1111) = (Frames::default(), a1111::State::default());
        Self(Arc::new(Inner {
            router,
            config,
            intake,
            frames,
            a1111,
            started: openai::now(),
            document: OnceLock::new(),
        }))
    }

    pub(crate) fn router(&self) -> &JobRouter {
        &self.0.router
    }

    pub(crate) fn config(&self) -> &ApiConfig {
        &self.0.config
    }

    pub(crate) fn intake(&self) -> &Intake {
        &self.0.intake
    }

    pub(crate) fn frames(&self) -> &Frames {
        &self.0.frames
    }

    pub(crate) fn started(&self) -> u64 {
        self.0.started
    }

    pub(crate) fn document(&self) -> &Bytes {
        self.0.document.get_or_init(|| openapi::document(self.0.config.faces).to_string().into())
    }

    pub(crate) fn a1111(&self) -> &a1111::State {
        &self.0.a1111
    }

    /// Answers one request. Needs a tokio runtime with time.
    pub async fn handle<B>(&self, mut request: Request<B>) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let id = request_id::of(request.headers());
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let begun = Instant::now();
        let origin = request.headers().get(ORIGIN).cloned();
        let form = Form::at(&path, self.config().faces);
        if form == Form::A1111 {
            a1111::take_basic_as_bearer(self, &mut request);
        }
        let answer = match self.config().cors.preflight(&request) {
            Some(answer) => answer,
            None => self.dispatch(request, &id).await,
        };
        let mut response = answer.unwrap_or_else(|error| form.tell(error));
        headers::secure(response.headers_mut());
        self.config().cors.mark(origin.as_ref(), response.headers_mut());
        let route = Route::of(&path).map_or("other", Route::pattern);
        metrics::answered(&method, route, response.status(), begun.elapsed());
        tracing::debug!(?id, %method, path, status = response.status().as_u16(), "answered");
        response.headers_mut().insert(X_REQUEST_ID, id);
        response
    }

    async fn dispatch<B>(
        &self,
        request: Request<B>,
        id: &HeaderValue,
    ) -> Result<Response<ResponseBody>, ApiError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let path = request.uri().path().to_owned();
        let route = Route::of(&path).filter(|route| self.config().faces.show(route));
        let access = route.map_or(Access::Token, |route| route.access(request.method()));
        let caller = gate::admit(self, &request, access)?;
        let caller = caller.within(trace::parent(request.headers())).asking(id);
        let Some(route) = route else {
            return Err(ApiError::new(ErrorCode::NotFound, "there is nothing at this address"));
        };
        if !route.allows(request.method()) {
            return Err(ApiError::method_not_allowed(route.allowed()));
        }
        match route {
            Route::Jobs if request.method() == Method::POST => {
                handlers::submit_job::handle(self, request, &caller).await
            }
            Route::Jobs => handlers::list_jobs::handle(self, request.uri().query(), &caller).await,
            Route::Job(id) if request.method() == Method::DELETE => {
                handlers::cancel_job::handle(self, id, &caller).await
            }
            Route::Job(id) => handlers::show_job::handle(self, id, &caller).await,
            Route::JobStream(id) => handlers::stream_job::handle(self, id, request.headers(), &caller).await,
            Route::JobImage(id, index) => {
                handlers::job_image::handle(self, id, index, request.headers(), &caller).await
            }
            Route::Models => Ok(handlers::list_models::handle(self)),
            Route::Model(id) => handlers::show_model::handle(self, id),
            Route::ModelLoad(id) => handlers::swap_model::load(self, id),
            Route::ModelUnload(id) => handlers::swap_model::unload(self, id),
            Route::Info => Ok(handlers::info::handle(self)),
            Route::Health => Ok(handlers::health::handle()),
            Route::Ready => handlers::ready::handle(self),
            Route::OpenAi(call) => openai::handle(self, call, &caller, request).await,
            Route::A1111(call) => a1111::handle(self, call, &caller, request).await,
            Route::OpenApi => Ok(handlers::openapi::handle(self)),
            Route::Metrics => handlers::metrics::handle(self),
        }
    }
}
