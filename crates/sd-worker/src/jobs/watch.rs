//! `sd-worker jobs watch`: a job's events, over as many connections as it takes.

use std::thread::sleep;
use std::time::Duration;

use operations_contract::{JobEvent, Terminator};

use super::args::WatchArgs;
use super::client::{Client, Unanswered};
use super::{events, job_path};
use crate::exit::{Failure, say};
use crate::previews::PreviewFile;
use crate::story::{Bar, Done, Story};

/// The first pause after a connection broke; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// So often in a row without a new event between: about a minute.
const ATTEMPTS: u32 = 10;

pub(crate) fn run(client: &Client, args: &WatchArgs) -> Result<(), Failure> {
    let done = follow(client, &args.job, Shown { bar: !args.json, events: args.json }, None)?;
    if args.json {
        return Ok(());
    }
    for (index, image) in done.images.iter().enumerate() {
        say(format!(
            "picture {index}: {}x{} {}, seed {}",
            image.width, image.height, image.format, image.seed
        ))?;
    }
    say(format!("sd-worker jobs fetch {} saves them", args.job))
}

/// What is shown of a job on the way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    pub(crate) bar: bool,
    /// Every event as it came.
    pub(crate) events: bool,
}

/// How one connection ended.
enum Ended {
    Job(Terminator),
    /// The job goes on; this is why the connection does not.
    Cut(String),
}

/// Follows a job to its end. Where a connection breaks, the next one goes on after the last event.
pub(crate) fn follow(
    client: &Client,
    job: &str,
    shown: Shown,
    previews: Option<PreviewFile>,
) -> Result<Done, Failure> {
    let mut story = Story::new(Bar::new("step", !shown.bar), previews);
    let (mut last, mut attempt) = (0, 0);
    loop {
        let before = last;
        let reason = match connection(client, job, &mut last, &mut story, shown)? {
            Ended::Job(end) => return story.end(end),
            Ended::Cut(reason) => reason,
        };
        attempt = if last > before { 0 } else { attempt + 1 };
        if attempt == ATTEMPTS {
            return Err(Failure::failed(format!(
                "{reason}; given up after {ATTEMPTS} attempts, the job may go on"
            )));
        }
        if attempt == 0 || attempt == 1 {
            story.note(&format!("{reason}; connecting again"));
        }
        sleep((FIRST_PAUSE * 2u32.pow(attempt)).min(LONGEST_PAUSE));
    }
}

fn connection(
    client: &Client,
    job: &str,
    last: &mut u64,
    story: &mut Story,
    shown: Shown,
) -> Result<Ended, Failure> {
    let mut reader = match client.events(&format!("{}/stream", job_path(job)), *last) {
        Ok(reader) => reader,
        Err(Unanswered { failure, passes: true }) => return Ok(Ended::Cut(failure.message)),
        Err(unanswered) => return Err(unanswered.into()),
    };
    loop {
        let event = match events::next(&mut reader) {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(Ended::Cut("the connection ended before the job".into())),
            Err(error) => return Ok(Ended::Cut(format!("the connection broke: {error}"))),
        };
        if let Ok(end) = event.data.parse::<Terminator>() {
            return Ok(Ended::Job(end));
        }
        if shown.events {
            say(&event.data)?;
        }
        // A worker that is newer may tell what this program does not know.
        if let Ok(told) = serde_json::from_str::<JobEvent>(&event.data) {
            story.tell(told);
        }
        *last = event.id.unwrap_or(*last);
    }
}
