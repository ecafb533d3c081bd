//! Metrics for Prometheus: what the engine tells, what this crate adds, and the text of `/metrics`.

use std::fmt;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use sd_engine::{JobRouter, Metric, MetricKind};

const REQUESTS: &str = "sd_worker_http_requests_total";
const REQUEST: &str = "sd_worker_http_request_seconds";
const LISTENERS: &str = "sd_worker_sse_listeners";
const JOBS: &str = "sd_worker_jobs";
const CAPACITY: &str = "sd_worker_queue_capacity";
const MEMORY: &str = "sd_worker_resident_memory_bytes";
const BUILD: &str = "sd_worker_build_info";

/// What this crate tells beside [`sd_engine::METRICS`].
pub const METRICS: &[Metric] = &[
    new(REQUESTS, MetricKind::Counter, &["method", "route", "status"], "Requests answered."),
    new(REQUEST, MetricKind::Histogram, &["route"], "From a request's head until the head of its answer."),
    new(LISTENERS, MetricKind::Gauge, &[], "Open event streams."),
    new(JOBS, MetricKind::Gauge, &["state"], "Jobs that wait (`queued`) and that run (`running`)."),
    new(CAPACITY, MetricKind::Gauge, &[], "Jobs that may wait."),
    new(MEMORY, MetricKind::Gauge, &[], "The process's resident memory."),
    new(BUILD, MetricKind::Gauge, &["version"], "Always 1."),
];

const fn new(
    name: &'static str,
    kind: MetricKind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, labels, help }
}

/// Seconds that requests, waits and steps take, from a millisecond to ten minutes.
const BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
    600.0,
];

/// Where the metrics of this process are kept. Cloning shares it.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

/// The metrics cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("no metrics: {0}")]
pub struct MetricsError(String);

impl Metrics {
    /// Makes this process keep metrics. At most once: they are the process's, not a server's.
    pub fn install() -> Result<Self, MetricsError> {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), BUCKETS)
            .map_err(|error| MetricsError(error.to_string()))?;
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|error| MetricsError(error.to_string()))?;
        sd_engine::METRICS.iter().chain(METRICS).for_each(Metric::describe);
        Ok(Self(handle))
    }

    /// Sorts what was measured into buckets. Where nobody asks for `/metrics`, call it every few seconds: measurements
    /// would pile up.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }

    /// The text that Prometheus reads.
    pub(crate) fn render(&self, router: &JobRouter, version: &str) -> String {
        let (waiting, capacity) = router.queue_usage();
        gauge!(JOBS, "state" => "queued").set(waiting as f64);
        gauge!(JOBS, "state" => "running").set(router.activity().borrow().saturating_sub(waiting) as f64);
        gauge!(CAPACITY).set(capacity as f64);
        gauge!(BUILD, "version" => version.to_owned()).set(1.0);
        if let Some(memory) = memory_stats::memory_stats() {
            gauge!(MEMORY).set(memory.physical_mem as f64);
        }
        self.0.render()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// A request was answered. `route` is its pattern, not its path: paths are without number.
pub(crate) fn answered(method: &http::Method, route: &'static str, status: http::StatusCode, time: Duration) {
    // Anybody can make up methods.
    let method = match method.as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known.to_owned(),
        _ => "other".to_owned(),
    };
    counter!(REQUESTS, "method" => method, "route" => route, "status" => status.as_str().to_owned())
        .increment(1);
    histogram!(REQUEST, "route" => route).record(time);
}

/// One open event stream, until it is dropped.
pub(crate) struct Listening(());

impl Listening {
    pub(crate) fn begin() -> Self {
        gauge!(LISTENERS).increment(1.0);
        Self(())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        gauge!(LISTENERS).decrement(1.0);
    }
}
