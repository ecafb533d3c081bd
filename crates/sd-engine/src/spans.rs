//! What a job is in logs and traces: one span, and within it one for each part of its way.
//!
//! The parts are called as the timings that a job's end tells. They are for traces: the log names them from `debug` on. Their
//! numbers are signed, since OpenTelemetry knows no others.

use operations_contract::{ErrorCode, JobId, JobState, OperationKind};
use tracing::Span;
use tracing::field::Empty;

use crate::generator::StepReport;
use crate::work::Work;

/// A job, from the time at which it is taken in until the engine lets go of it.
pub(crate) fn job(
    id: &JobId,
    operation: OperationKind,
    model: &str,
    device: &str,
    caller: Option<&str>,
) -> Span {
    tracing::info_span!(
        "job",
        id = %id,
        operation = operation.as_str(),
        model,
        device,
        caller,
        outcome = Empty,
        "error.type" = Empty,
        otel.status_description = Empty,
    )
}

/// Writes down how a job ended. Nothing is said within it afterwards.
pub(crate) fn ended(job: &Span, state: JobState, error: Option<ErrorCode>) {
    // Exporters take the last time at which a span was left for its end.
    job.in_scope(|| {
        job.record("outcome", state.as_str());
        if let Some(error) = error.filter(|_| state == JobState::Failed) {
            job.record("error.type", error.as_str());
            // Makes it one that failed, by the convention of tracing-opentelemetry.
            job.record("otel.status_description", error.as_str());
        }
    });
}

/// Until the engine takes the job up.
pub(crate) fn queued(job: &Span) -> Span {
    tracing::debug_span!(parent: job, "queued")
}

/// A model is loaded: for the job that this is said within, or for none.
pub(crate) fn load(model: &str) -> Span {
    tracing::debug_span!("load", model)
}

/// A model that was loaded ahead of its first job takes a step.
pub(crate) fn warm_up(model: &str) -> Span {
    tracing::debug_span!("warm_up", model)
}

/// All steps of a job, with the pauses between them.
pub(crate) fn denoise(job: &Span, work: &Work) -> Span {
    let size = |side: u32| (side > 0).then_some(i64::from(side));
    let (width, height) = (size(work.shape.width), size(work.shape.height));
    tracing::debug_span!(parent: job, "denoise", width, height, images = i64::from(work.shape.images), steps = Empty)
}

/// One step, taken in one forward pass with those of other jobs if `jobs` is more than 1.
pub(crate) fn stepped(denoise: &Span, report: &StepReport, jobs: usize) {
    if report.step == 1 {
        denoise.record("steps", i64::from(report.total_steps));
    }
    let jobs = i64::try_from(jobs).unwrap_or(i64::MAX);
    tracing::trace!(parent: denoise, step = i64::from(report.step), jobs, "step");
}

/// The pictures become files.
pub(crate) fn encode() -> Span {
    tracing::debug_span!("encode")
}
