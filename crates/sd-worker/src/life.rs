//! The end of a service: what runs is finished, within a time.

use clap::Args;
use sd_engine::{JobRouter, ModelBoard};
use std::time::Duration;

use crate::exit::{Failure, Kind};
use crate::reload::Reload;
use crate::signals::Signals;

/// After jobs were given up: until the engine has noticed.
const NOTICE: Duration = Duration::from_secs(2);

/// How a service ends.
#[derive(Debug, Args)]
pub(crate) struct LifeArgs {
    /// Seconds that running jobs get to finish after SIGTERM; 0 gives them up at once.
    #[arg(long, env = "SD_WORKER_DRAIN_TIMEOUT", default_value_t = 60, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub(crate) drain_timeout: u64,
}

/// How the jobs came to their ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// All that ran is finished.
    Finished,
    /// The time was over; so many jobs were given up.
    TimedOut(usize),
    /// A second signal came.
    AtOnce,
}

/// Refuses what is new and waits for what runs, until the time is over or another signal comes.
pub(crate) async fn drain(
    router: &JobRouter,
    models: &ModelBoard,
    signals: &mut Signals,
    reload: &mut Reload,
) -> Drained {
    router.shutdown();
    let timeout = reload.live().drain_timeout();
    let drained = tokio::select! {
        () = models.stopped() => return Drained::Finished,
        () = tokio::time::sleep(timeout) => {
            let jobs = router.abandon();
            tracing::warn!(jobs, ?timeout, "the time to finish is over, jobs are given up");
            Drained::TimedOut(jobs)
        }
        signal = signals.stop(reload) => {
            tracing::warn!(signal, jobs = router.abandon(), "stopping at once");
            return Drained::AtOnce;
        }
    };
    // A step can take long; the listeners know already.
    let _noticed = tokio::time::timeout(NOTICE, models.stopped()).await;
    drained
}

impl Drained {
    /// The end of the process. Jobs that are `kept` go on in the next one: then nothing is lost.
    pub(crate) fn into_result(self, kept: bool) -> Result<(), Failure> {
        match self {
            Self::Finished | Self::TimedOut(0) => Ok(()),
            Self::TimedOut(_) if kept => Ok(()),
            Self::TimedOut(jobs) => {
                Err(Failure::failed(format!("{jobs} jobs were given up: see --drain-timeout")))
            }
            Self::AtOnce => {
                Err(Failure { kind: Kind::Interrupted, message: "stopped at once by a second signal".into() })
            }
        }
    }
}
