//! `sd-worker jobs list`.

use operations_contract::{JobList, JobState, JobView};
use serde_json::Value;

use super::args::ListArgs;
use super::client::Client;
use crate::exit::{Failure, say};

/// So much of a prompt is shown.
const PROMPT: usize = 40;

/// Jobs are asked for in pages of so many: the most that a worker gives.
const PAGE: usize = 1000;

pub(crate) fn run(client: &Client, args: &ListArgs) -> Result<(), Failure> {
    let mut jobs = newest(client, args)?;
    // The newest stand last, above the next prompt.
    jobs.reverse();
    if args.json {
        let list = JobList { jobs, next_cursor: None };
        return say(serde_json::to_string(&list).map_err(Failure::failed)?);
    }
    jobs.iter().try_for_each(|job| say(line(job)))
}

/// The jobs that are wanted, the newest first.
fn newest(client: &Client, args: &ListArgs) -> Result<Vec<JobView>, Failure> {
    let wanted = args.limit.unwrap_or(usize::MAX);
    let states: String = args.state.iter().map(|state| format!("&state={}", state.as_str())).collect();
    let (mut jobs, mut after) = (Vec::new(), String::new());
    while jobs.len() < wanted {
        let limit = PAGE.min(wanted - jobs.len());
        let page: JobList = client.get(&format!("/v1/jobs?order=newest&limit={limit}{states}{after}"))?;
        jobs.extend(page.jobs);
        match page.next_cursor {
            Some(cursor) => after = format!("&cursor={cursor}"),
            None => break,
        }
    }
    Ok(jobs)
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
