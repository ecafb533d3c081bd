//! Metrics: their names are documented, and their values are true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use metrics_exporter_prometheus::PrometheusBuilder;
use sd_engine::{Metric, MetricKind};
use sd_http::{ApiConfig, Metrics};
use serde_json::Value;

use crate::support::{Setup, Worker};

const DOCUMENTED: &str = include_str!("../../../../docs/observability.md");
const DASHBOARD: &str = include_str!("../../../../docs/grafana/sd-worker.json");

fn all() -> impl Iterator<Item = &'static Metric> {
    sd_engine::METRICS.iter().chain(sd_http::METRICS)
}

/// Metrics are the process's, so tests that run in one process share them: counts are lower bounds.
pub(crate) fn metrics() -> Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| Metrics::install().unwrap()).clone()
}

#[test]
fn every_metric_is_documented_with_its_kind_and_labels() {
    let rows: BTreeSet<&str> = DOCUMENTED.lines().filter(|line| line.starts_with("| `sd_worker_")).collect();
    assert_eq!(rows.len(), all().count());
    for metric in all() {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = labels.join(", ");
        let gap = if labels.is_empty() { "" } else { " " };
        let row = format!("| `{}` | {kind} |{gap}{labels} |", metric.name);
        assert!(rows.iter().any(|line| line.starts_with(&row)), "docs/observability.md lacks `{row}`");
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist_and_for_all_of_them() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let expressions: String = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap())
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    let asked: BTreeSet<&str> = expressions
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("sd_worker_"))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word))
        .collect();
    let known: BTreeSet<&str> = all().map(|metric| metric.name).collect();
    assert_eq!(asked, known);
}

/// The value of the line that begins so.
fn value(text: &str, line: &str) -> f64 {
    let found = text.lines().find_map(|candidate| candidate.strip_prefix(line));
    found.unwrap_or_else(|| panic!("no `{line}` in\n{text}")).trim().parse().unwrap()
}

#[tokio::test]
async fn a_worker_that_has_worked_says_so() {
    let api = ApiConfig { metrics: Some(metrics()), ..ApiConfig::default() };
    let worker = Worker::with(Setup { api, ..Setup::default() }).await;
    let job = worker.submit("a cat").await;
    worker.stream(&job).await;
    worker.post_text(r#"{"operation": "image_generation"}"#).await;
    worker.get("/nothing/here").await;

    let answer = worker.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let text = answer.text();
    assert!(value(&text, r#"sd_worker_jobs_accepted_total{operation="image_generation"}"#) >= 1.0);
    assert!(value(&text, r#"sd_worker_jobs_refused_total{code="invalid_request"}"#) >= 1.0);
    let ended = r#"sd_worker_jobs_ended_total{operation="image_generation",state="completed"}"#;
    assert!(value(&text, ended) >= 1.0);
    assert!(value(&text, r#"sd_worker_images_total{operation="image_generation"}"#) >= 1.0);
    assert!(value(&text, r#"sd_worker_job_wait_seconds_count{operation="image_generation"}"#) >= 1.0);
    assert!(value(&text, r#"sd_worker_steps_total{model="test-model"}"#) > 0.0);
    assert!(value(&text, r#"sd_worker_queue_capacity"#) == 8.0);
    assert!(value(&text, "sd_worker_sse_listeners") >= 0.0);
    assert!(value(&text, "sd_worker_resident_memory_bytes") > 1e6);
    let streams = r#"sd_worker_http_requests_total{method="GET",route="/v1/jobs/{id}/stream",status="200"}"#;
    assert!(value(&text, streams) >= 1.0);
    let unknown = r#"sd_worker_http_requests_total{method="GET",route="other",status="404"}"#;
    assert!(value(&text, unknown) >= 1.0);
    // Nobody's paths become labels.
    assert!(!text.contains("nothing"), "{text}");
}

#[tokio::test]
async fn a_worker_without_metrics_says_so() {
    assert_eq!(Worker::start().await.get("/metrics").await.status, 404);
}

/// What never reaches the engine is counted as well, and nothing twice: the engine counts on a thread of its own, which
/// this recorder does not hear.
#[tokio::test]
async fn each_refused_submission_is_counted_once() {
    let api = ApiConfig { max_body_bytes: 1 << 10, ..ApiConfig::default() };
    let worker = Worker::with(Setup { api, ..Setup::default() }).await;
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _hearing = metrics::set_default_local_recorder(&recorder);
    let counted = || {
        let text = handle.render();
        let counts = text.lines().filter_map(|line| line.strip_prefix("sd_worker_jobs_refused_total{code="));
        let count = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap();
        let code = |line: &str| line.split('"').nth(1).unwrap().to_owned();
        counts.map(|line| (code(line), count(line))).collect::<BTreeMap<_, _>>()
    };
    let large = format!("{{\"prompt\": \"{}\"}}", "a".repeat(1 << 10));
    for address in ["/v1/jobs", "/v1/images/generations", "/sdapi/v1/txt2img", "/sdapi/v1/extra-single-image"]
    {
        for (kind, key, body, code) in [
            ("text/plain", "k", "{}", "unsupported_media_type"),
            ("application/json", "a b", "{}", "invalid_request"),
            ("application/json", "k", "{", "invalid_request"),
            ("application/json", "k", "[", "invalid_request"),
            ("application/json", "k", &large, "payload_too_large"),
            // By the engine.
            ("application/json", "k", r#"{"steps": 0}"#, ""),
        ] {
            let mut expected = counted();
            if !code.is_empty() {
                *expected.entry(code.to_owned()).or_default() += 1;
            }
            let request = Request::post(address).header("content-type", kind).header("idempotency-key", key);
            let body = Full::new(Bytes::from(body.to_owned()));
            let answer = worker.api.handle(request.body(body).unwrap()).await;
            assert!(answer.status().is_client_error(), "{address} {code}");
            assert_eq!(counted(), expected, "{address} {code}");
        }
    }
    let expected = counted()["invalid_request"] + 1;
    let request = Request::post("/v1/jobs?wiat=true").header("content-type", "application/json");
    worker.api.handle(request.body(Full::new(Bytes::new())).unwrap()).await;
    assert_eq!(counted()["invalid_request"], expected);
}
