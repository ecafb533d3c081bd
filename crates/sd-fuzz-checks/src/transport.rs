//! What comes in with HTTP requests, before anything is drawn.

use std::cell::RefCell;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use operations_contract::{ErrorBody, ErrorCode};
use sd_engine::{JobRegistry, JobRouter, ModelBoard, RequestQueue};
use sd_http::{Api, ApiConfig, ResponseBody};
use tokio::runtime::{Builder, Runtime};

/// A worker whose model never comes: all that is asked of a request before that is looked at.
struct Worker {
    runtime: Runtime,
    api: Api,
}

thread_local! {
    static WORKER: RefCell<Worker> = RefCell::new(Worker::new());
}

impl Worker {
    fn new() -> Self {
        let (queue, _receiver) = RequestQueue::new(1);
        let router = JobRouter::new(queue, JobRegistry::in_memory().unwrap(), ModelBoard::new());
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, api: Api::new(router, ApiConfig::default()) }
    }

    /// The status and the error of an answer that must be one.
    fn refusal(&self, request: Request<Full<Bytes>>) -> (u16, ErrorBody) {
        self.runtime.block_on(async {
            let response: Response<ResponseBody> = self.api.handle(request).await;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let error: ErrorBody = serde_json::from_slice(&body).unwrap();
            assert!(!error.error.message.is_empty());
            (status, error)
        })
    }
}

fn refusal(request: Request<Full<Bytes>>) -> (u16, ErrorBody) {
    WORKER.with_borrow(|worker| worker.refusal(request))
}

/// `Last-Event-ID`: a number of a job that is not there (404), or no number (400).
pub fn sse_id(data: &[u8]) {
    let Ok(id) = HeaderValue::from_bytes(data) else { return };
    let request = Request::get("/v1/jobs/job-1/stream").header("last-event-id", id);
    let (status, body) = refusal(request.body(Full::default()).unwrap());
    match status {
        404 => assert_eq!(body.error.code, ErrorCode::NotFound),
        400 => {
            assert_eq!(body.error.code, ErrorCode::InvalidRequest);
            assert_eq!(body.error.fields[0].field, "Last-Event-ID");
        }
        other => panic!("{other}: {}", body.error),
    }
}

/// A form, with whatever boundary its first line says: it is refused, as broken or because no model is loaded, and by no
/// fault of ours.
pub fn multipart(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\r' || *byte == b'\n').unwrap_or(data.len());
    let boundary = data[..end].strip_prefix(b"--").unwrap_or(b"frontier");
    let kind = [b"multipart/form-data; boundary=".as_slice(), boundary].concat();
    let Ok(kind) = HeaderValue::from_bytes(&kind) else { return };
    let request = Request::post("/v1/jobs").header(CONTENT_TYPE, kind);
    let (status, body) = refusal(request.body(Full::from(data.to_vec())).unwrap());
    assert!(matches!(status, 400 | 413 | 415 | 503), "{status}: {}", body.error);
}
