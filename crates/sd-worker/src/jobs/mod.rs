//! `sd-worker jobs`: the jobs of a worker elsewhere, over its HTTP API.

pub(crate) mod args;
mod client;
mod events;
mod fetch;
mod list;
mod submit;
mod watch;

use operations_contract::CancelView;

use crate::exit::{Failure, say};
use args::{CancelArgs, JobsArgs, JobsCommand};
use client::Client;

/// `explicit` names the flags that stand on the command line.
pub(crate) fn run(args: &JobsArgs, explicit: &[String]) -> Result<(), Failure> {
    let client = Client::new(&args.remote)?;
    match &args.command {
        JobsCommand::Submit(args) => submit::run(&client, args, explicit),
        JobsCommand::List(args) => list::run(&client, args),
        JobsCommand::Watch(args) => watch::run(&client, args),
        JobsCommand::Cancel(args) => cancel(&client, args),
        JobsCommand::Fetch(args) => fetch::run(&client, args),
    }
}

/// All are tried; the first that could not be cancelled is the error.
fn cancel(client: &Client, args: &CancelArgs) -> Result<(), Failure> {
    let mut result = Ok(());
    for job in &args.job {
        match client.delete::<CancelView>(&job_path(job)) {
            Ok(CancelView { job_id, state }) if state.is_terminal() => say(format!("{job_id}: cancelled"))?,
            Ok(CancelView { job_id, .. }) => say(format!("{job_id}: ends before its next step"))?,
            Err(unanswered) => {
                let failure = Failure::from(unanswered);
                let failure = Failure { message: format!("{job}: {}", failure.message), ..failure };
                match result {
                    Ok(()) => result = Err(failure),
                    Err(_) => eprintln!("error: {}", failure.message),
                }
            }
        }
    }
    result
}

/// Where a job is. Whatever an id holds, it stays one segment of the address.
fn job_path(id: &str) -> String {
    let mut path = String::from("/v1/jobs/");
    for byte in id.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => path.push(byte.into()),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_one_segment() {
        assert_eq!(job_path("job-1a"), "/v1/jobs/job-1a");
        assert_eq!(job_path("../x y"), "/v1/jobs/%2E%2E%2Fx%20y");
    }
}
