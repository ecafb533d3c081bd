//! `sd-worker jobs list`.

use operations_contract::{JobList, JobState, JobView};
use serde_json::Value;

use super::args::ListArgs;
use super::client::Client;
use crate::exit::{Failure, say};

/// So much of a prompt is shown.
const PROMPT: usize = 40;

pub(crate) fn run(client: &Client, args: &ListArgs) -> Result<(), Failure> {
    let JobList { mut jobs } = client.get("/v1/jobs")?;
    jobs.retain(|job| args.state.is_empty() || args.state.contains(&job.state));
    if let Some(limit) = args.limit {
        jobs.drain(..jobs.len().saturating_sub(limit));
    }
    if args.json {
        return say(serde_json::to_string(&JobList { jobs }).map_err(Failure::failed)?);
    }
    jobs.iter().try_for_each(|job| say(line(job)))
}

fn line(job: &JobView) -> String {
    let state = match (job.state, job.progress) {
        (JobState::Running, Some(progress)) => format!("{}/{}", progress.step, progress.total_steps),
        (state, _) => {
            serde_json::to_value(state).ok().as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
        }
    };
    let prompt = job.parameters.get("prompt").and_then(Value::as_str).unwrap_or_default();
    let mut shown: String =
        prompt.chars().map(|c| if c.is_control() { ' ' } else { c }).take(PROMPT).collect();
    if prompt.chars().count() > PROMPT {
        shown.push('…');
    }
    format!("{}  {state:<9}  {:<16}  {}  {shown}", job.job_id, job.operation, job.model)
}
