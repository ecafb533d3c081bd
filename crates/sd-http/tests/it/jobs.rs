//! Submitting, showing and cancelling.

use http::StatusCode;
use sd_engine::Retention;
use serde_json::json;

use crate::support::{Setup, Worker};

#[tokio::test]
async fn a_submission_tells_where_to_look() {
    let worker = Worker::start().await;
    let answer = worker.post(&json!({"operation": "image_generation", "prompt": "a cat"})).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let body = answer.json();
    let id = body["job_id"].as_str().unwrap();
    assert!(id.starts_with("job-") && id.len() == "job-".len() + 36, "{id}");
    assert_eq!(body["sse_url"], format!("/v1/jobs/{id}/stream"));
    assert_eq!(answer.headers["location"], format!("/v1/jobs/{id}"));
}

#[tokio::test]
async fn a_job_is_shown_in_every_state() {
    let worker = Worker::start().await;
    let running = worker.occupy().await;
    let waiting = worker.submit("waits").await;
    let failing = worker.submit("fail in step").await;
    let shown = worker.get(&waiting).await.json();
    assert_eq!((&shown["state"], &shown["operation"]), (&json!("queued"), &json!("image_generation")));
    assert_eq!((&shown["parameters"]["prompt"], &shown["parameters"]["steps"]), (&json!("waits"), &json!(3)));
    assert!(shown.get("started_ms").is_none());

    worker.gate.let_through(1);
    while worker.get(&running).await.json()["progress"]["step"] != 1 {
        tokio::task::yield_now().await;
    }
    worker.gate.open();
    worker.stream(&failing).await;
    let done = worker.get(&running).await.json();
    assert_eq!(done["state"], "completed");
    assert_eq!(done["progress"], json!({"step": 3, "total_steps": 3, "percent": 100.0}));
    assert!(done["images"][0]["bytes"].as_u64().unwrap() > 0);
    let failed = worker.get(&failing).await.json();
    assert_eq!((&failed["state"], &failed["error"]["code"]), (&json!("failed"), &json!("inference_failed")));

    let list = worker.get("/v1/jobs").await.json();
    let states: Vec<_> = list["jobs"].as_array().unwrap().iter().map(|job| job["state"].clone()).collect();
    assert_eq!(states, ["completed", "completed", "failed"]);
}

#[tokio::test]
async fn two_jobs_run_in_order() {
    let worker = Worker::start().await;
    let (a, b) = (worker.submit("a").await, worker.submit("b").await);
    worker.stream(&b).await;
    worker.stream(&a).await;
    let ends: Vec<String> = worker
        .log
        .lines()
        .into_iter()
        .filter(|line| line.contains("begin") || line.contains("finish"))
        .collect();
    assert_eq!(ends, ["a:begin", "a:finish", "b:begin", "b:finish"]);
}

#[tokio::test]
async fn a_waiting_job_is_cancelled_at_once() {
    let worker = Worker::start().await;
    worker.occupy().await;
    let waiting = worker.submit("waits").await;
    let answer = worker.delete(&waiting).await;
    assert_eq!((answer.status, &answer.json()["state"]), (StatusCode::OK, &json!("cancelled")));
    let stream = worker.stream(&waiting).await;
    assert_eq!(stream.last().unwrap().data, "[CANCELLED]");
    assert_eq!(stream[stream.len() - 2].json()["code"], "cancelled");
    worker.gate.open();
}

#[tokio::test]
async fn a_running_job_is_cancelled_before_its_next_step() {
    let worker = Worker::start().await;
    let running = worker.occupy().await;
    let answer = worker.delete(&running).await;
    assert_eq!((answer.status, &answer.json()["state"]), (StatusCode::ACCEPTED, &json!("running")));
    worker.gate.let_through(1);
    assert_eq!(worker.stream(&running).await.last().unwrap().data, "[CANCELLED]");
    assert_eq!(worker.log.lines().last().unwrap(), "gated occupation:1");
    assert_eq!(worker.get(&running).await.json()["state"], "cancelled");
}

#[tokio::test]
async fn what_is_over_or_unknown_cannot_be_cancelled() {
    let worker = Worker::start().await;
    let job = worker.submit("a cat").await;
    worker.stream(&job).await;
    let over = worker.delete(&job).await;
    assert_eq!((over.status.as_u16(), over.code().as_str()), (409, "conflict"));
    let unknown = worker.delete("/v1/jobs/job-none").await;
    assert_eq!((unknown.status.as_u16(), unknown.code().as_str()), (404, "not_found"));
    assert_eq!(worker.get("/v1/jobs/job-none").await.status, 404);
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_again() {
    let worker = Worker::with(Setup { capacity: 1, ..Setup::default() }).await;
    worker.occupy().await;
    let waiting = worker.submit("waits").await;
    let answer = worker.post(&json!({"operation": "image_generation", "prompt": "too many"})).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (429, "queue_full"));
    let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds));
    worker.gate.open();
    worker.stream(&waiting).await;
    worker.submit("now there is room").await;
}

#[tokio::test]
async fn forgotten_jobs_are_not_found() {
    let retention = Retention { max_jobs: 1, ..Retention::default() };
    let worker = Worker::with(Setup { retention, ..Setup::default() }).await;
    let first = worker.submit("1").await;
    worker.stream(&first).await;
    let second = worker.submit("2").await;
    worker.stream(&second).await;
    assert_eq!(worker.get(&first).await.status, 404);
    assert_eq!(worker.get(&format!("{first}/stream")).await.status, 404);
    assert_eq!(worker.get(&second).await.status, 200);
}

#[tokio::test]
async fn a_deadline_ends_with_timeout() {
    let worker = Worker::start().await;
    worker.occupy().await;
    let body = json!({"operation": "image_generation", "prompt": "late", "deadline_ms": 1});
    let job = format!("/v1/jobs/{}", worker.post(&body).await.json()["job_id"].as_str().unwrap());
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    worker.gate.open();
    let stream = worker.stream(&job).await;
    assert_eq!(stream[stream.len() - 2].json()["code"], "timeout");
    assert!(stream.last().unwrap().data.starts_with("[ERROR] "));
}
