//! Traces, as a collector gets them from the real binary with the feature `otel`.

#![allow(clippy::unwrap_used)]

#[path = "support/collector.rs"]
mod collector;
#[path = "support/logged.rs"]
mod logged;

use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use collector::{Collector, Reply, number, text};
use logged::Service;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::{Value, json};

const TOKEN: (&str, &str) = ("SD_WORKER_TOKEN", "t0p-5ecret");
const AUTHORIZATION: &str = "authorization: Bearer t0p-5ecret\r\n";
/// Spans are sent soon, not after seconds.
const SOON: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "50");
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn drawing(steps: u32) -> Value {
    json!({"operation": "image_generation", "prompt": "a zebra", "negative_prompt": "giraffe", "steps": steps, "seed": 1})
}

/// Submits with these headers, waits for the end, and gives the job's id.
fn done(service: &Service, headers: &str, operation: &Value) -> String {
    let job = service.submit(&format!("{AUTHORIZATION}{headers}"), operation);
    let story = service.send("GET", &format!("{job}/stream"), AUTHORIZATION, b"").text();
    assert!(story.contains("[DONE]"), "{story}");
    job.rsplit('/').next().unwrap().to_owned()
}

/// The span of a job, once the collector has it.
fn span_of(service: &Service, collector: &Collector, id: &str) -> Span {
    service.until("traced", || collector.job(id).is_some());
    collector.job(id).unwrap()
}

/// What is within a span, by name; each lies within its time.
fn parts_of(collector: &Collector, job: &Span) -> Vec<Span> {
    let mut parts: Vec<_> =
        collector.spans().into_iter().filter(|span| span.parent_span_id == job.span_id).collect();
    for part in &parts {
        assert_eq!(part.trace_id, job.trace_id, "{}", part.name);
        assert!(job.start_time_unix_nano <= part.start_time_unix_nano, "{}", part.name);
        assert!(part.start_time_unix_nano <= part.end_time_unix_nano, "{}", part.name);
        assert!(part.end_time_unix_nano <= job.end_time_unix_nano, "{}", part.name);
    }
    parts.sort_by_key(|part| part.start_time_unix_nano);
    parts
}

fn names(parts: &[Span]) -> Vec<&str> {
    parts.iter().map(|part| part.name.as_str()).collect()
}

#[test]
fn a_collector_gets_the_trace_of_each_job_without_its_prompt() {
    let collector = Collector::start(|_| Reply::Take);
    let variables = [
        TOKEN,
        SOON,
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.version=7"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-scope=a%20b,authorization=Bearer%20t0p-5ecret"),
        ("SD_WORKER_LOG", "trace"),
    ];
    let flags = ["--otlp-endpoint", &collector.url, "--worker-id", "gpu-3", "--log-prompts"];
    let service = Service::start(&flags, &variables).ready();

    let id = done(&service, &format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n"), &drawing(3));
    let job = span_of(&service, &collector, &id);
    assert_eq!((hexadecimal(&job.trace_id), hexadecimal(&job.parent_span_id)), (TRACE.into(), PARENT.into()));
    let attributes: Vec<_> = ["operation", "model", "device", "outcome", "caller", "error.type"]
        .map(|key| text(&job.attributes, key))
        .into_iter()
        .collect();
    let expected = ["image_generation", "demo", "cpu", "completed"].map(|value| Some(value.to_owned()));
    assert_eq!((&attributes[..4], &attributes[4..]), (&expected[..], &[None, None][..]));
    assert_ne!(job.status.clone().unwrap_or_default().code, StatusCode::Error as i32);
    let parts = parts_of(&collector, &job);
    assert_eq!(names(&parts), ["queued", "text_encode", "denoise", "decode", "encode"]);
    let denoise = &parts[2];
    assert_eq!(
        ["steps", "width", "images"].map(|key| number(&denoise.attributes, key)),
        [Some(3), Some(128), Some(1)]
    );
    let steps: Vec<_> =
        denoise.events.iter().map(|event| (&event.name[..], number(&event.attributes, "step"))).collect();
    assert_eq!(steps, [("step", Some(1)), ("step", Some(2)), ("step", Some(3))]);

    let resource = collector.resource().attributes;
    for (key, value) in [
        ("service.name", "sd-worker"),
        ("service.instance.id", "gpu-3"),
        ("service.version", "7"),
        ("deployment.environment.name", "test"),
        ("telemetry.sdk.language", "rust"),
    ] {
        assert_eq!(text(&resource, key).as_deref(), Some(value), "{key}");
    }
    collector.look(|batches| {
        for batch in batches {
            assert!(batch.head.starts_with("post /v1/traces http/1.1\r\n"), "{}", batch.head);
            assert!(batch.head.contains("content-type: application/x-protobuf\r\n"), "{}", batch.head);
            assert!(batch.head.contains("x-scope: a b\r\n"), "{}", batch.head);
            assert!(batch.head.contains("authorization: bearer t0p-5ecret\r\n"), "{}", batch.head);
        }
    });

    // Whoever decided that the trace is not kept decided it for the job too.
    let unwanted = TRACE.replace('4', "5");
    done(&service, &format!("traceparent: 00-{unwanted}-{PARENT}-00\r\n"), &drawing(1));
    // What names no trace is ignored. This one begins with a picture.
    let picture = service.send("GET", &format!("/v1/jobs/{id}/images/0"), AUTHORIZATION, b"").body;
    let again = json!({"operation": "image_transform", "prompt": "a zebra", "steps": 2, "strength": 0.5,
        "init_image": STANDARD.encode(picture)});
    let id = done(&service, "traceparent: 00-4bf92f35-zebra-01\r\n", &again);
    let own = span_of(&service, &collector, &id);
    assert!(own.parent_span_id.is_empty() && own.trace_id != job.trace_id);
    let parts = parts_of(&collector, &own);
    assert_eq!(names(&parts), ["queued", "text_encode", "image_encode", "denoise", "decode", "encode"]);

    assert!(collector.spans().iter().all(|span| hexadecimal(&span.trace_id) != unwanted));
    collector.look(|batches| {
        let sent: Vec<u8> = batches.iter().flat_map(|batch| batch.body.iter().copied()).collect();
        let sent = String::from_utf8_lossy(&sent);
        assert!(sent.contains("image_transform"), "what is sent can be searched");
        for secret in ["zebra", "giraffe", "5ecret"] {
            assert!(!sent.contains(secret), "{secret}");
        }
    });
    // Bytes would be told sixteen to a line: no secret need be in one piece.
    let log = service.log();
    assert!(!log.contains("5ecret") && !log.contains("TRACE ureq"), "{log}");
    let info = service.send("GET", "/v1/info", AUTHORIZATION, b"").json();
    assert!(info["features"].as_array().unwrap().contains(&json!("otel")), "{info}");
}

#[test]
fn failed_and_cancelled_jobs_are_told_as_such() {
    let collector = Collector::start(|_| Reply::Take);
    let variables =
        [TOKEN, SOON, ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url), ("OTEL_SERVICE_NAME", "pictures")];
    let service = Service::start(&[], &variables).ready();
    let long = service.submit(AUTHORIZATION, &drawing(150));
    let mut late = drawing(1);
    late["deadline_ms"] = json!(1);
    let late = service.submit(AUTHORIZATION, &late);
    let id = |job: &str| job.rsplit('/').next().unwrap().to_owned();

    let failed = span_of(&service, &collector, &id(&late));
    assert_eq!(text(&failed.attributes, "outcome").as_deref(), Some("failed"));
    assert_eq!(text(&failed.attributes, "error.type").as_deref(), Some("timeout"));
    let status = failed.status.clone().unwrap();
    assert_eq!((status.code, &status.message[..]), (StatusCode::Error as i32, "timeout"));
    assert_eq!(names(&parts_of(&collector, &failed)), ["queued"]);

    assert!(service.send("DELETE", &long, AUTHORIZATION, b"").status < 300);
    let cancelled = span_of(&service, &collector, &id(&long));
    assert_eq!(text(&cancelled.attributes, "outcome").as_deref(), Some("cancelled"));
    assert_ne!(cancelled.status.clone().unwrap_or_default().code, StatusCode::Error as i32);
    assert_eq!(text(&collector.resource().attributes, "service.name").as_deref(), Some("pictures"));
}

#[test]
fn a_collector_that_comes_back_gets_what_comes_next() {
    let collector = Collector::start(|batch| if batch == 0 { Reply::Refuse(503) } else { Reply::Take });
    let service = Service::start(&["--otlp-endpoint", &collector.url], &[TOKEN, SOON]).ready();
    service.until("refused", || service.log().contains("the collector does not take them: it answered 503"));
    let id = done(&service, "", &drawing(1));
    span_of(&service, &collector, &id);
    service.until("told", || service.log().contains("the collector takes spans again"));
}

/// Each answer would take an hour: whoever waited for one would be found waiting.
#[test]
#[cfg(unix)]
fn a_collector_that_is_away_or_hangs_stops_nothing() {
    let hanging = Collector::start(|_| Reply::Hang);
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    for (url, is_there) in [(&hanging.url, true), (&gone, false)] {
        let variables = [TOKEN, SOON, ("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000")];
        let mut service = Service::start(&["--otlp-endpoint", url], &variables).ready();
        for _ in 0..2 {
            done(&service, "", &drawing(1));
        }
        let id = service.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let start = Instant::now();
        let ended = loop {
            if let Some(ended) = service.child.try_wait().unwrap() {
                break ended;
            }
            assert!(start.elapsed() < logged::PATIENCE, "never ended: {}", service.log());
            std::thread::sleep(Duration::from_millis(50));
        };
        assert_eq!(ended.code(), Some(0), "{}", service.log());
        let (log, told) = (service.log(), "the collector does not take them");
        assert_eq!(log.matches(told).count(), usize::from(!is_there), "once is enough: {log}");
        assert_eq!(log.contains("the last spans are lost"), is_there, "{log}");
    }
}

#[test]
fn what_the_environment_says_of_the_collector_is_checked() {
    for (variable, value, told) in [
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "collector:4318",
            "error: OTEL_EXPORTER_OTLP_ENDPOINT must begin with http://",
        ),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "error: OTEL_EXPORTER_OTLP_TIMEOUT: `soon` is no number"),
        ("SD_WORKER_OTLP_ENDPOINT", "ftp://collector", "--otlp-endpoint <URL>': must begin with http://"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_sd-worker"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
            .env(variable, value)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{said}");
        assert!(said.contains(told), "{said}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_sd-worker")).arg("info").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("\ntraces: OTLP over HTTP\n"));
}
