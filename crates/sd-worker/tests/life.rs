//! From SIGTERM to the exit code, and SIGHUP: the real binary.

#![allow(clippy::unwrap_used)]
#![cfg(unix)]

#[path = "support/service.rs"]
mod service;

use serde_json::{Value, json};
use service::Service;

/// A job that runs for minutes.
fn endless() -> Value {
    json!({"operation": "image_generation", "prompt": "a star", "width": 512, "height": 512, "steps": 150, "seed": 3})
}

/// Submits it and waits until it runs. Gives the addresses of the job and of its events.
fn run(service: &mut Service, operation: &Value) -> (String, String) {
    let (status, accepted) = service.submit(operation);
    assert_eq!(status, 202, "{accepted}");
    let job = format!("/v1/jobs/{}", accepted["job_id"].as_str().unwrap());
    service.until("a step is done", |service| service.get(&job).1.contains("\"progress\""));
    (job, accepted["sse_url"].as_str().unwrap().to_owned())
}

#[test]
fn while_it_drains_it_is_not_ready_and_takes_nothing_new() {
    let mut service = Service::start(&["--drain-timeout=3600"]);
    let (_, events) = run(
        &mut service,
        &json!({"operation": "image_generation", "prompt": "a star", "width": 128, "height": 128, "steps": 150}),
    );
    let (status, waiting) =
        service.submit(&json!({"operation": "image_generation", "prompt": "x", "steps": 1}));
    assert_eq!(status, 202);
    let (story, waited) = std::thread::scope(|scope| {
        let service = &service;
        let story = scope.spawn(|| service.get(&events).1);
        let waited = scope.spawn(|| service.get(waiting["sse_url"].as_str().unwrap()).1);
        std::thread::sleep(std::time::Duration::from_millis(200));
        service.signal("-TERM");
        let waited = waited.join().unwrap();
        for (method, path, body) in [
            ("GET", "/ready", ""),
            ("POST", "/v1/jobs", "{\"operation\":\"image_generation\",\"prompt\":\"x\"}"),
        ] {
            let (status, answer) = service.send(method, path, "", body);
            assert!(status == 503 && answer.contains("shutting_down"), "{method} {path}: {status} {answer}");
        }
        assert_eq!(service.get("/health").0, 200);
        (story.join().unwrap(), waited)
    });
    assert!(story.contains("data: [DONE]"), "{story}");
    assert!(waited.contains("\"code\":\"shutting_down\"") && waited.contains("data: [ERROR]"), "{waited}");
    assert_eq!(service.wait().code(), Some(0));
}

#[test]
fn when_the_time_is_over_listeners_are_told_and_the_exit_code_says_it() {
    for (timeout, second, code) in [("0", None, 1), ("600", Some("-TERM"), 130)] {
        let mut service = Service::start(&["--drain-timeout", timeout]);
        let (_, events) = run(&mut service, &endless());
        let story = std::thread::scope(|scope| {
            let service = &mut service;
            let address = service.address.clone();
            let story = scope.spawn(move || read(&address, &events));
            std::thread::sleep(std::time::Duration::from_millis(200));
            service.signal("-TERM");
            if let Some(second) = second {
                service.until("draining", |service| service.get("/ready").1.contains("shutting_down"));
                service.signal(second);
            }
            story.join().unwrap()
        });
        assert!(
            story.contains("\"code\":\"shutting_down\"") && story.contains("data: [ERROR]"),
            "{timeout}: {story}"
        );
        assert_eq!(service.wait().code(), Some(code), "{}", service.log());
    }
}

/// With a data directory what is given up is not lost: the next process goes on with it.
#[test]
fn jobs_that_are_given_up_go_on_where_they_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--drain-timeout=0", &format!("--data-dir={}", folder.path().display())];
    let mut service = Service::start(&flags);
    let (job, _) = run(&mut service, &endless());
    service.signal("-TERM");
    assert_eq!(service.wait().code(), Some(0), "{}", service.log());
    let mut again = Service::start(&flags);
    again.until("it runs again", |service| service.get(&job).1.contains("\"progress\""));
}

/// The model's names come from a file that never ends to arrive.
#[test]
fn sigterm_is_followed_while_the_model_loads() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("names.json");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut service =
        Service::start_unready(&["--model=sd15", &format!("--models-file={}", pipe.display())], &[]);
    let (status, answer) = service.get("/ready");
    assert!(status == 503 && answer.contains("not_ready"), "{status} {answer}");
    service.signal("-TERM");
    assert_eq!(service.wait().code(), Some(0), "{}", service.log());
}

/// All that an event stream says.
fn read(address: &str, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(service::PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn sighup_changes_what_can_change_and_names_what_cannot() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, "log = \"info\"\nqueue-capacity = 5\ndrain-timeout = 600\n").unwrap();
    let config = format!("--config={}", path.display());
    let mut service = Service::start(&[&config]);
    std::fs::write(
        &path,
        "log = \"sd_http=debug,info\"\nqueue-capacity = 6\ndrain-timeout = 0\n[[models]]\nmodel = \"demo\"\n",
    )
    .unwrap();
    service.signal("-HUP");
    service.until("read again", |service| service.log().contains("read again"));
    let log = service.log();
    for (key, what) in [
        ("log", "changed"),
        ("drain-timeout", "changed"),
        ("queue-capacity", "needs a restart"),
        ("models", "needs a restart"),
    ] {
        let named = log
            .lines()
            .find(|line| line.contains(&format!("key=\"{key}\"")))
            .unwrap_or_else(|| panic!("{log}"));
        assert!(named.contains(what), "{named}");
    }
    assert!(!log.contains("key=\"dtype\""), "{log}");
    service.get("/health");
    service.until("the new log level", |service| service.log().contains("answered"));

    std::fs::write(&path, "queue-capacity = 0\n").unwrap();
    service.signal("-HUP");
    service.until("refused", |service| service.log().contains("stays as it was"));
    assert!(service.log().contains("c.toml:1"), "{}", service.log());
    // The drain timeout of the second file counts, not that of the first.
    run(&mut service, &endless());
    service.signal("-TERM");
    assert_eq!(service.wait().code(), Some(1), "{}", service.log());
}
