//! Addresses, methods, headers, and what the worker tells of itself.

use http::{Method, Request};

use crate::support::Worker;

async fn ask(worker: &Worker, method: Method, path: &str) -> crate::support::Answer {
    worker.send(Request::builder().method(method).uri(path).body(String::new()).unwrap()).await
}

#[tokio::test]
async fn unknown_addresses_are_404_in_the_one_error_form() {
    let worker = Worker::start().await;
    for path in ["/nothing", "/v1", "/v1/jobs/", "/v2/jobs"] {
        let answer = worker.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "not_found"), "{path}");
    }
}

#[tokio::test]
async fn other_methods_are_405_with_those_that_work() {
    let worker = Worker::start().await;
    for (method, path, allow) in [
        (Method::PUT, "/v1/jobs", "GET, HEAD, POST"),
        (Method::POST, "/v1/jobs/job-1", "GET, HEAD, DELETE"),
        (Method::DELETE, "/v1/jobs/job-1/stream", "GET"),
        (Method::POST, "/v1/info", "GET, HEAD"),
        (Method::DELETE, "/health", "GET, HEAD"),
    ] {
        let answer = ask(&worker, method, path).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (405, "method_not_allowed"), "{path}");
        assert_eq!(answer.headers["allow"], allow);
    }
}

#[tokio::test]
async fn head_answers_as_get_without_a_body() {
    let worker = Worker::start().await;
    let answer = ask(&worker, Method::HEAD, "/v1/info").await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
    assert_eq!(answer.headers["content-type"], "application/json");
}

#[tokio::test]
async fn every_answer_has_a_request_id() {
    let worker = Worker::start().await;
    let with = |id: &str| {
        worker.send(Request::get("/health").header("x-request-id", id).body(String::new()).unwrap())
    };
    assert_eq!(with("abc-123").await.headers["x-request-id"], "abc-123");
    let long = "x".repeat(1000);
    for unfit in ["", "a b", &long] {
        let id = with(unfit).await.headers["x-request-id"].clone();
        assert_eq!(id.len(), 36, "{unfit}");
    }
    let (first, second) = (worker.get("/health").await, worker.get("/nothing").await);
    assert_ne!(first.headers["x-request-id"], second.headers["x-request-id"]);
}

#[tokio::test]
async fn models_tell_what_they_can() {
    let worker = Worker::start().await;
    let list = worker.get("/v1/models").await.json();
    let model = &list["models"][0];
    assert_eq!((&model["id"], &model["size_multiple"]), (&"test-model".into(), &8.into()));
    assert_eq!(model["samplers"], serde_json::json!(["euler", "ddim"]));
    assert_eq!(model["operations"], serde_json::json!(["image_generation", "image_transform"]));
    // The model alone has OpenAI's fields beside them.
    let mut alone = worker.get("/v1/models/test-model").await.json();
    alone.as_object_mut().unwrap().retain(|field, _| model.get(field).is_some());
    assert_eq!(&alone, model);
    let unknown = worker.get("/v1/models/a/b").await;
    assert_eq!((unknown.status.as_u16(), unknown.code().as_str()), (404, "model_not_found"));
}

#[tokio::test]
async fn info_tells_version_device_and_limits() {
    let worker = Worker::start().await;
    let info = worker.get("/v1/info").await.json();
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&info["device"], &info["model"]), (&"cpu".into(), &"test-model".into()));
    assert_eq!(info["limits"]["max_body_bytes"], 32 << 20);
    assert_eq!(info["queue"], serde_json::json!({"waiting": 0, "capacity": 8}));
}
