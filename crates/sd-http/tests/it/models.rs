//! Models over HTTP. Several of them are tested where they are loaded, in `sd-worker` and `sd-engine`.

use http::{Request, StatusCode};

use crate::support::Worker;

async fn post(worker: &Worker, path: &str) -> crate::support::Answer {
    worker.send(Request::post(path).body(String::new()).unwrap()).await
}

#[tokio::test]
async fn a_model_is_told_with_its_state() {
    let worker = Worker::start().await;
    let list = worker.get("/v1/models").await.json();
    assert_eq!(list["models"][0]["id"], "test-model");
    assert_eq!(list["models"][0]["state"], "loaded");
    let one = worker.get("/v1/models/default").await.json();
    assert_eq!(
        (&one["id"], &one["default_width"], &one["state"]),
        (&"test-model".into(), &64.into(), &"loaded".into(),)
    );
}

#[tokio::test]
async fn loading_what_is_loaded_is_done_already() {
    let worker = Worker::start().await;
    let answer = post(&worker, "/v1/models/test-model/load").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["state"], "loaded");
}

#[tokio::test]
async fn what_is_not_there_is_neither_loaded_nor_unloaded() {
    let worker = Worker::start().await;
    for action in ["load", "unload"] {
        let answer = post(&worker, &format!("/v1/models/stabilityai/sd-turbo/{action}")).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "model_not_found".into()));
        let answer = worker.get(&format!("/v1/models/test-model/{action}")).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(answer.headers["allow"], "POST");
    }
}
