//! What the engine measures, told through the `metrics` facade: an embedding service installs the recorder that it
//! likes, or none, and then nothing is kept.
//!
//! [`METRICS`] is the one list of names; `docs/observability.md` explains them, and a test holds the two together.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use operations_contract::{ErrorCode, JobState, JobView, OperationKind};

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It is as it is now.
    Gauge,
    /// A distribution.
    Histogram,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name, with the unit as the last word but `_total`.
    pub name: &'static str,
    /// How it behaves.
    pub kind: MetricKind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

const ACCEPTED: &str = "sd_worker_jobs_accepted_total";
const REFUSED: &str = "sd_worker_jobs_refused_total";
const ENDED: &str = "sd_worker_jobs_ended_total";
const ERRORS: &str = "sd_worker_job_errors_total";
const WAIT: &str = "sd_worker_job_wait_seconds";
const RUN: &str = "sd_worker_job_run_seconds";
const STEPS: &str = "sd_worker_steps_total";
const STEP: &str = "sd_worker_step_seconds";
const PACE: &str = "sd_worker_iterations_per_second";
const IMAGES: &str = "sd_worker_images_total";
const LOADS: &str = "sd_worker_model_loads_total";
const LOAD: &str = "sd_worker_model_load_seconds";

/// All that the engine tells.
pub const METRICS: &[Metric] = &[
    new(ACCEPTED, MetricKind::Counter, &["operation"], "Jobs accepted."),
    new(REFUSED, MetricKind::Counter, &["code"], "Submissions that became no job, by error code."),
    new(ENDED, MetricKind::Counter, &["operation", "state"], "Jobs that are over."),
    new(ERRORS, MetricKind::Counter, &["code"], "Jobs that failed, by error code."),
    new(WAIT, MetricKind::Histogram, &["operation"], "From acceptance until the engine takes a job up."),
    new(RUN, MetricKind::Histogram, &["operation"], "From there until a completed job's images are written."),
    new(STEPS, MetricKind::Counter, &["model"], "Denoising steps; its rate is iterations per second."),
    new(STEP, MetricKind::Histogram, &["model"], "One denoising step, of all jobs that run together."),
    new(PACE, MetricKind::Gauge, &["model"], "Iterations per second, by the last step."),
    new(IMAGES, MetricKind::Counter, &["operation"], "Images drawn."),
    new(LOADS, MetricKind::Counter, &["model", "outcome"], "Models loaded: outcome `ok` or `failed`."),
    new(LOAD, MetricKind::Histogram, &["model"], "Loading a model."),
];

const fn new(
    name: &'static str,
    kind: MetricKind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, labels, help }
}

impl Metric {
    /// Tells the recorder what this metric is.
    pub fn describe(&self) {
        let unit = if self.name.ends_with("_seconds") { Unit::Seconds } else { Unit::Count };
        match self.kind {
            MetricKind::Counter => describe_counter!(self.name, unit, self.help),
            MetricKind::Gauge => describe_gauge!(self.name, unit, self.help),
            MetricKind::Histogram => describe_histogram!(self.name, unit, self.help),
        }
    }
}

pub(crate) fn accepted(operation: OperationKind) {
    counter!(ACCEPTED, "operation" => operation.as_str()).increment(1);
}

pub(crate) fn refused(code: ErrorCode) {
    counter!(REFUSED, "code" => code.as_str()).increment(1);
}

/// The engine has taken a job up.
pub(crate) fn started(job: &JobView) {
    let waited = between(Some(job.created_ms), job.started_ms);
    histogram!(WAIT, "operation" => job.operation.as_str()).record(waited);
}

/// A job is over.
pub(crate) fn ended(job: &JobView) {
    let operation = job.operation.as_str();
    counter!(ENDED, "operation" => operation, "state" => job.state.as_str()).increment(1);
    match (job.state, &job.error) {
        (JobState::Failed, Some(error)) => counter!(ERRORS, "code" => error.code.as_str()).increment(1),
        (JobState::Completed, _) => {
            counter!(IMAGES, "operation" => operation).increment(job.images.len() as u64);
            histogram!(RUN, "operation" => operation).record(between(job.started_ms, job.finished_ms));
        }
        _ => {}
    }
}

/// From one time to another, in milliseconds since 1970.
fn between(from: Option<u64>, to: Option<u64>) -> Duration {
    Duration::from_millis(to.unwrap_or_default().saturating_sub(from.unwrap_or_default()))
}

/// `jobs` advanced together by one step of `model`.
pub(crate) fn stepped(model: &str, jobs: usize, time: Duration) {
    let model = model.to_owned();
    if jobs == 0 {
        return;
    }
    counter!(STEPS, "model" => model.clone()).increment(jobs as u64);
    histogram!(STEP, "model" => model.clone()).record(time);
    if !time.is_zero() {
        gauge!(PACE, "model" => model).set(jobs as f64 / time.as_secs_f64());
    }
}

/// A model was loaded, or could not be.
pub(crate) fn loaded(model: &str, ok: bool, time: Duration) {
    let outcome = if ok { "ok" } else { "failed" };
    counter!(LOADS, "model" => model.to_owned(), "outcome" => outcome).increment(1);
    if ok {
        histogram!(LOAD, "model" => model.to_owned()).record(time);
    }
}
