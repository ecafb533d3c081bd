//! Heartbeats of the real binary, as a little router receives them.

#![allow(clippy::unwrap_used)]

#[path = "support/little_server.rs"]
mod little_server;
#[path = "support/service.rs"]
mod service;

use std::time::{Duration, Instant};

use little_server::{Answer, LittleServer, Received};
use operations_contract::{Heartbeat, WorkerStatus};
use serde_json::json;
use service::{PATIENCE, Service};

const OK: Answer = Answer::Status(200, r#"{"status": "ok", "message": "welcome"}"#);

fn heartbeat(received: &Received) -> Heartbeat {
    assert_eq!(received.line, "POST /v1/worker-heartbeat");
    assert_eq!(received.header("content-type"), Some("application/json"));
    serde_json::from_str(&received.body).unwrap()
}

/// Reads heartbeats up to the first with this status. Gives it and when it came.
fn until(router: &LittleServer, status: WorkerStatus) -> (Heartbeat, Instant) {
    loop {
        let received = router.next(PATIENCE);
        let heartbeat = heartbeat(&received);
        if heartbeat.worker.status == status {
            return (heartbeat, received.at);
        }
    }
}

#[test]
#[cfg(unix)]
fn every_state_from_the_first_to_the_last_is_told() {
    let router = LittleServer::start(|_, _| OK);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut service = Service::start_unready(
        &[
            &format!("--callback-url={}/", router.url),
            "--worker-id=w-7",
            &format!("--port={port}"),
            "--model-path=demo",
            "--device=cpu",
        ],
        &[],
    );
    let first = heartbeat(&router.next(PATIENCE));
    assert_eq!(first.worker.status, WorkerStatus::Starting);
    assert!(first.worker.capabilities.is_empty());
    let (ready, _) = until(&router, WorkerStatus::Ready);
    let worker = &ready.worker;
    assert_eq!(
        (worker.id.as_str(), worker.model_id.as_str(), worker.device.as_str()),
        ("w-7", "demo", "cpu")
    );
    assert_eq!(format!("{}:{}", worker.host, worker.port), format!("127.0.0.1:{port}"));
    assert_eq!(service.address, format!("127.0.0.1:{port}"));
    assert_eq!(
        (worker.implementation.as_str(), worker.version.as_str()),
        ("sd-worker", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(worker.capabilities[0].default_width, 128);
    let time = humantime::parse_rfc3339(&ready.timestamp).unwrap();
    assert!(time.elapsed().unwrap() < Duration::from_secs(600), "{}", ready.timestamp);

    let operation = json!({"operation": "image_generation", "prompt": "a star", "width": 512, "height": 512, "steps": 150});
    let asked = Instant::now();
    let (status, accepted) = service.submit(&operation);
    assert_eq!(status, 202, "{accepted}");
    let (_, at) = until(&router, WorkerStatus::Busy);
    // Much sooner than the next regular heartbeat.
    assert!(at - asked < Duration::from_secs(20));
    let job = format!("/v1/jobs/{}", accepted["job_id"].as_str().unwrap());
    assert_eq!(service.send("DELETE", &job, "", "").0, 202);
    until(&router, WorkerStatus::Ready);
    service.submit(&operation);
    until(&router, WorkerStatus::Busy);
    service.signal("-TERM");
    until(&router, WorkerStatus::Stopping);
    service.signal("-TERM");
    until(&router, WorkerStatus::Stopped);
    service.wait();
    assert!(router.is_quiet(Duration::from_millis(300)));
}

/// The router is gone, then wrong, then silent, then back: the worker tries again less and less often, works on, and
/// what it says at last is how it is.
#[test]
fn a_router_that_fails_is_asked_again_and_disturbs_nothing() {
    let silence = Duration::from_secs(60);
    let router = LittleServer::start(move |number, _| match number {
        0 => Answer::Cut,
        1 => Answer::Status(500, "{}"),
        2 => Answer::Status(200, "what?"),
        3 => Answer::Raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"status\"".into()),
        4 => Answer::Silence(silence),
        _ => OK,
    });
    let queen = format!("--queen-url={}", router.url);
    let service = Service::start(&[&queen, "--heartbeat-interval=4"]);
    let sent = |received: &Received| humantime::parse_rfc3339(&heartbeat(received).timestamp).unwrap();
    let times: Vec<_> = (0..5).map(|_| sent(&router.next(PATIENCE))).collect();
    let pauses: Vec<f64> =
        times.windows(2).map(|pair| pair[1].duration_since(pair[0]).unwrap().as_secs_f64()).collect();
    // 1, 2, 4 and 4 seconds, of which at least half is waited; the times are told in milliseconds. Above, a busy machine
    // may add what it likes.
    for (pause, least) in pauses.iter().zip([0.5, 1.0, 2.0, 2.0]) {
        assert!(*pause > least - 0.002, "{pauses:?}");
    }
    // The fifth heartbeat hangs; jobs do not.
    let (status, accepted) =
        service.submit(&json!({"operation": "image_generation", "prompt": "x", "steps": 2}));
    assert_eq!(status, 202, "{accepted}");
    assert!(service.get(accepted["sse_url"].as_str().unwrap()).1.contains("data: [DONE]"));
    assert_eq!(heartbeat(&router.next(PATIENCE)).worker.status, WorkerStatus::Ready);
    let log = service.log();
    assert_eq!(log.matches("was not told").count(), 1, "{log}");
    drop(service);
}

#[test]
#[cfg(unix)]
fn a_router_that_never_answers_does_not_hold_the_end() {
    let router = LittleServer::start(|_, _| Answer::Silence(Duration::from_secs(600)));
    let mut service = Service::start(&[&format!("--queen-url={}", router.url)]);
    router.next(PATIENCE);
    service.signal("-TERM");
    assert_eq!(service.wait().code(), Some(0), "{}", service.log());
    assert!(service.log().contains("could not be told"), "{}", service.log());
}

#[test]
fn an_address_that_is_none_is_refused() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_sd-worker"))
        .args(["serve", "--queen-url", "queen:7833"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("http://"));
}
