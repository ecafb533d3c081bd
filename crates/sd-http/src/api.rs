//! The worker's HTTP face as a value: a request in, a response out.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request, Response};
use hyper::body::Body;
use operations_contract::ErrorCode;
use sd_engine::JobRouter;

use crate::body::{BoxError, ResponseBody};
use crate::config::ApiConfig;
use crate::error::ApiError;
use crate::handlers;
use crate::metrics;
use crate::request_id::{self, X_REQUEST_ID};
use crate::route::Route;

/// Answers requests. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Api(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    router: JobRouter,
    config: ApiConfig,
}

impl Api {
    /// Takes the front door of the engine.
    pub fn new(router: JobRouter, config: ApiConfig) -> Self {
        Self(Arc::new(Inner { router, config }))
    }

    pub(crate) fn router(&self) -> &JobRouter {
        &self.0.router
    }

    pub(crate) fn config(&self) -> &ApiConfig {
        &self.0.config
    }

    /// Answers one request. Needs a tokio runtime with time.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let id = request_id::of(request.headers());
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let begun = Instant::now();
        let mut response = self.dispatch(request).await.unwrap_or_else(ApiError::into_response);
        let route = Route::of(&path).map_or("other", Route::pattern);
        metrics::answered(&method, route, response.status(), begun.elapsed());
        tracing::debug!(?id, %method, path, status = response.status().as_u16(), "answered");
        response.headers_mut().insert(X_REQUEST_ID, id);
        response
    }

    async fn dispatch<B>(&self, request: Request<B>) -> Result<Response<ResponseBody>, ApiError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let path = request.uri().path().to_owned();
        let route = Route::of(&path);
        if !route.is_some_and(Route::is_open) {
            self.authorize(&request)?;
        }
        let Some(route) = route else {
            return Err(ApiError::new(ErrorCode::NotFound, "there is nothing at this address"));
        };
        if !route.allows(request.method()) {
            return Err(ApiError::method_not_allowed(route.allowed()));
        }
        match route {
            Route::Jobs if request.method() == Method::POST => {
                handlers::submit_job::handle(self, request).await
            }
            Route::Jobs => Ok(handlers::list_jobs::handle(self)),
            Route::Job(id) if request.method() == Method::DELETE => handlers::cancel_job::handle(self, id),
            Route::Job(id) => handlers::show_job::handle(self, id),
            Route::JobStream(id) => handlers::stream_job::handle(self, id, request.headers()),
            Route::JobImage(id, index) => handlers::job_image::handle(self, id, index, request.headers()),
            Route::Models => Ok(handlers::list_models::handle(self)),
            Route::Model(id) => handlers::show_model::handle(self, id),
            Route::ModelLoad(id) => handlers::swap_model::load(self, id),
            Route::ModelUnload(id) => handlers::swap_model::unload(self, id),
            Route::Info => Ok(handlers::info::handle(self)),
            Route::Health => Ok(handlers::health::handle()),
            Route::Ready => handlers::ready::handle(self),
            Route::OpenApi => Ok(handlers::openapi::handle()),
            Route::Metrics => handlers::metrics::handle(self),
        }
    }

    fn authorize<B>(&self, request: &Request<B>) -> Result<(), ApiError> {
        match &self.config().token {
            Some(token) if !token.admits(request.headers()) => {
                Err(ApiError::new(ErrorCode::Unauthorized, "a valid bearer token is required"))
            }
            _ => Ok(()),
        }
    }
}
