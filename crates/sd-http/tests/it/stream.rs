//! Server-sent events.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Request;
use sd_http::ApiConfig;
use serde_json::json;

use crate::support::{Setup, Worker, events};

#[tokio::test]
async fn a_stream_is_the_whole_story_and_one_terminator() {
    let worker = Worker::start().await;
    let job = worker.submit("a cat").await;
    let stream = worker.stream(&job).await;
    let ids: Vec<Option<u64>> = stream.iter().map(|event| event.id).collect();
    assert_eq!(ids, [Some(1), Some(2), Some(3), Some(4), Some(5), Some(6), None]);
    let types: Vec<String> =
        stream[..6].iter().map(|event| event.json()["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(types, ["queued", "started", "progress", "progress", "progress", "complete"]);
    assert_eq!(stream[6].data, "[DONE]");
    assert_eq!(stream[1].json()["model"], "test-model");
    let image = stream[5].json()["images"][0].clone();
    assert_eq!((image["format"].clone(), image["width"].clone()), (json!("png"), json!(64)));
    assert!(image["image"].as_str().unwrap().starts_with("iVBORw0KGgo"), "a PNG in base64");
}

#[tokio::test]
async fn second_and_late_subscribers_get_the_same() {
    let worker = Worker::start().await;
    let job = worker.occupy().await;
    let (first, second, _) = tokio::join!(worker.stream(&job), worker.stream(&job), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        worker.gate.open();
    });
    assert_eq!(first.len(), 7);
    assert_eq!(first, second);
    assert_eq!(worker.stream(&job).await, first);
}

#[tokio::test]
async fn last_event_id_resumes_after_it() {
    let worker = Worker::start().await;
    let job = worker.submit("a cat").await;
    let whole = worker.stream(&job).await;
    assert_eq!(worker.stream_after(&job, Some("4")).await, whole[4..]);
    assert_eq!(worker.stream_after(&job, Some("6")).await, whole[6..]);
    assert_eq!(worker.stream_after(&job, Some("0")).await, whole);
}

/// A browser's `EventSource` comes again after every end, until it is answered 204.
#[tokio::test]
async fn whoever_has_all_of_a_story_is_told_to_come_no_more() {
    let worker = Worker::start().await;
    let job = worker.submit("a cat").await;
    let resume = |id: &str| {
        let request = Request::get(format!("{job}/stream")).header("last-event-id", id);
        worker.send(request.body(String::new()).unwrap())
    };
    let whole = resume("0").await.text();
    assert!(whole.starts_with("retry: 1000\n\nid: 1\ndata: {"), "{whole}");
    assert!(whole.ends_with("data: [DONE]\n\nid: 7\n\n"), "{whole}");
    // Without the terminator it does not have all.
    assert_eq!(resume("6").await.text(), "retry: 1000\n\ndata: [DONE]\n\nid: 7\n\n");
    for beyond in ["7", "8", "18446744073709551615"] {
        let answer = resume(beyond).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0), "{beyond}");
    }
    // A job that is not over may have more to tell, whatever its listener has heard of.
    let open = worker.occupy().await;
    let request = Request::get(format!("{open}/stream")).header("last-event-id", "99");
    let answer = worker.api.handle(request.body(http_body_util::Empty::new()).unwrap()).await;
    assert_eq!(answer.status(), 200);
    worker.gate.open();
}

#[tokio::test]
async fn a_last_event_id_that_is_none_is_refused() {
    let worker = Worker::start().await;
    let job = worker.submit("a cat").await;
    let request = Request::get(format!("{job}/stream")).header("last-event-id", "abc");
    let answer = worker.send(request.body(String::new()).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.fields()), (400, vec!["Last-Event-ID".to_owned()]));
}

#[tokio::test]
async fn a_quiet_stream_is_kept_alive_by_comments() {
    let api = ApiConfig { keep_alive: Duration::from_millis(20), ..ApiConfig::default() };
    let worker = Worker::with(Setup { api, ..Setup::default() }).await;
    let job = worker.occupy().await;
    let request = Request::get(format!("{job}/stream")).body(String::new()).unwrap();
    let (answer, ()) = tokio::join!(worker.send(request), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        worker.gate.open();
    });
    assert!(answer.text().matches(": keep-alive\n\n").count() >= 2, "{}", answer.text());
    assert_eq!(events(&answer.text()).last().unwrap().data, "[DONE]");
}

#[tokio::test]
async fn events_arrive_when_they_happen() {
    let worker = Worker::start().await;
    let job = worker.occupy().await;
    let request = Request::get(format!("{job}/stream")).body(http_body_util::Empty::new()).unwrap();
    let mut body = worker.api.handle(request).await.into_body();
    let mut text = String::new();
    worker.gate.let_through(1);
    while !text.contains("progress") {
        let frame =
            tokio::time::timeout(Duration::from_secs(5), body.frame()).await.unwrap().unwrap().unwrap();
        text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
    }
    assert!(!text.contains("[DONE]"));
    worker.gate.open();
}

#[tokio::test]
async fn a_failure_ends_with_an_error_event_and_the_next_job_is_served() {
    let worker = Worker::start().await;
    let broken = worker.submit("panic in step").await;
    let stream = worker.stream(&broken).await;
    let [.., error, end] = &stream[..] else { panic!("{stream:?}") };
    assert_eq!(error.json()["type"], "error");
    assert_eq!(error.json()["code"], "inference_failed");
    assert!(end.data.starts_with("[ERROR] the generator panicked"), "{end:?}");
    assert_eq!(end.id, None);
    let next = worker.submit("a cat").await;
    assert_eq!(worker.stream(&next).await.last().unwrap().data, "[DONE]");
    assert_eq!(worker.get("/ready").await.status, 200);
}

#[tokio::test]
async fn an_unknown_job_has_no_stream() {
    let worker = Worker::start().await;
    let answer = worker.get("/v1/jobs/job-none/stream").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "not_found"));
}
