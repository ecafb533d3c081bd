//! `GET /sdapi/v1/progress`, `POST /sdapi/v1/interrupt` and `skip`: about the caller's own jobs that came this way.

use http::{Response, StatusCode, Uri};
use operations_contract::{ImageData, JobEvent, JobState, JobView};
use sd_engine::JobUpdate;

use super::answer::timestamp;
use super::views::{Progress, ProgressState};
use crate::api::Api;
use crate::body::{self, ResponseBody};
use crate::caller::Caller;
use crate::error::ApiError;
use crate::query;

pub(crate) fn handle(api: &Api, caller: &Caller, uri: &Uri) -> Result<Response<ResponseBody>, ApiError> {
    let without_image = query::flag(uri, "skip_current_image")?;
    let job = api.a1111().current(api, caller);
    let told = match &job {
        Some(job) => of(api, job, without_image),
        None => Progress {
            progress: 0.0,
            eta_relative: 0.0,
            state: state(None, 0, 0),
            current_image: None,
            textinfo: None,
        },
    };
    Ok(body::json(StatusCode::OK, &told))
}

/// Ends the job that runs, or waits longest. One that has just ended is no matter.
pub(crate) async fn interrupt(api: &Api, caller: &Caller) -> Result<(), ApiError> {
    if let Some(job) = api.a1111().current(api, caller) {
        let _over = api.blocking(move |router| router.cancel(&job.job_id)).await?;
    }
    Ok(())
}

fn of(api: &Api, job: &JobView, without_image: bool) -> Progress {
    let (mut eta_ms, mut image): (u64, Option<ImageData>) = (0, None);
    if let Some(mut updates) = api.router().subscribe(&job.job_id, 0) {
        while let Some(update) = updates.now() {
            match update {
                JobUpdate::Event { event: JobEvent::Progress { eta_ms: eta, .. }, .. } => eta_ms = eta,
                JobUpdate::Event { event: JobEvent::Preview { image: preview, .. }, .. } => {
                    image = Some(preview)
                }
                _ => {}
            }
        }
    }
    let (step, steps) = job.progress.map_or((0, 0), |progress| (progress.step, progress.total_steps));
    // The web UI begins at 0.01.
    let progress = 0.01 + if steps == 0 { 0.0 } else { f64::from(step) / f64::from(steps) };
    Progress {
        progress: progress.min(1.0),
        eta_relative: eta_ms as f64 / 1000.0,
        state: state(Some(job), step, steps),
        current_image: image.filter(|_| !without_image).map(|image| image.to_base64()),
        textinfo: (job.state == JobState::Queued).then_some("Waiting..."),
    }
}

fn state(job: Option<&JobView>, step: u32, steps: u32) -> ProgressState {
    let begun = job.map(|job| timestamp(job.started_ms.unwrap_or(job.created_ms)));
    ProgressState {
        skipped: false,
        interrupted: false,
        stopping_generation: false,
        job: job.map(|job| job.job_id.to_string()).unwrap_or_default(),
        job_count: u32::from(job.is_some()),
        job_timestamp: begun.unwrap_or_else(|| "0".to_owned()),
        job_no: 0,
        sampling_step: step,
        sampling_steps: steps,
    }
}
