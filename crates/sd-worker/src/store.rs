//! Where the worker's jobs are kept, and how long.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use sd_engine::{JobRegistry, JobRouter, Retention, Store, StoreError};
use sd_inference::machine::parse_bytes;

use crate::exit::Failure;

/// The name of the directory that is none.
const MEMORY: &str = ":memory:";
/// How often a worker with nothing to do looks for jobs that are not to be kept any longer.
const TIDY: Duration = Duration::from_secs(60);

/// Where jobs are kept, and how long.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// A directory that keeps jobs, their events and their pictures: what was accepted goes on after a restart.
    /// `:memory:` keeps them as long as the worker lives.
    #[arg(long, env = "SD_WORKER_DATA_DIR", default_value = MEMORY, value_name = "DIRECTORY")]
    pub(crate) data_dir: String,
    /// How many jobs that are over are kept [default: 256 in memory, 10000 in a directory].
    #[arg(long, env = "SD_WORKER_KEEP_JOBS", value_name = "JOBS")]
    pub(crate) keep_jobs: Option<usize>,
    /// How long a job that is over is kept: `90s`, `12h`, `7days` [default: 1h in memory, 7days in a directory].
    #[arg(long, env = "SD_WORKER_KEEP_AGE", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) keep_age: Option<Duration>,
    /// How much the jobs that are over may weigh together, with their pictures [default: 512MiB in memory, 10GiB in a
    /// directory].
    #[arg(long, env = "SD_WORKER_KEEP_BYTES", value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) keep_bytes: Option<u64>,
}

impl StoreArgs {
    /// Whether jobs outlive the process.
    pub(crate) fn is_durable(&self) -> bool {
        self.data_dir != MEMORY
    }

    /// Opens the store, with the jobs that are in it.
    pub(crate) fn open(&self) -> Result<JobRegistry, Failure> {
        let durable = self.is_durable();
        let store = match durable {
            true => Store::open(Path::new(&self.data_dir)),
            false => Store::in_memory(),
        };
        let registry = store.and_then(|store| JobRegistry::new(store, self.retention(durable)));
        registry.map_err(|error| match error {
            // Another directory would do.
            StoreError::InUse { .. } | StoreError::Directory { .. } | StoreError::Newer { .. } => {
                Failure::refused(error)
            }
            error => Failure::failed(format!("the data directory {}: {error}", self.data_dir)),
        })
    }

    fn retention(&self, durable: bool) -> Retention {
        let default = match durable {
            true => Retention {
                max_age: Duration::from_secs(7 * 24 * 3600),
                max_jobs: 10_000,
                max_bytes: 10 << 30,
            },
            false => Retention::default(),
        };
        let keep_bytes = self.keep_bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        Retention {
            max_age: self.keep_age.unwrap_or(default.max_age),
            max_jobs: self.keep_jobs.unwrap_or(default.max_jobs),
            max_bytes: keep_bytes.unwrap_or(default.max_bytes),
        }
    }
}

/// Takes up what the last process left, once a model can serve.
pub(crate) fn resume(router: &JobRouter) {
    let resumed = tokio::task::block_in_place(|| router.resume());
    if resumed > 0 {
        tracing::info!(jobs = resumed, "going on with the jobs of the last run");
    }
}

/// Keeps the store tidy as long as the runtime lives.
pub(crate) fn keep_tidy(router: JobRouter) {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(TIDY).await;
            let router = router.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || router.tidy()).await {
                tracing::error!(%error, "tidying the store panicked");
            }
        }
    });
}
