//! Tells a router above that the worker is there, and what it is up to.
//!
//! A task of its own posts heartbeats. Nobody waits for it: a router that is slow, gone or broken costs the worker
//! nothing but a line in the log.

pub(crate) mod args;
mod post;

use std::time::Duration;

use operations_contract::{Heartbeat, WorkerInfo, WorkerStatus};
use sd_engine::{BoardChanges, JobRouter, ModelBoard, ModelStatus};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use post::Poster;

/// How long after a failure the next attempt comes at the latest; the first time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// So close heartbeats follow each other at most: short jobs would flood the router.
const SHORTEST_GAP: Duration = Duration::from_millis(100);
/// How long the end of the process waits for the last heartbeat.
const FAREWELL: Duration = Duration::from_secs(3);

/// What the heartbeats of a worker have in common.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) url: String,
    pub(crate) interval: Duration,
    /// As told in heartbeats; status, host and capabilities are filled in.
    pub(crate) id: String,
    pub(crate) model: String,
    pub(crate) device: String,
    /// `None`: the address of this machine towards the router.
    pub(crate) host: Option<String>,
    pub(crate) port: u16,
}

/// A registered worker.
#[derive(Debug)]
pub(crate) struct Registration {
    phase: watch::Sender<Phase>,
    task: JoinHandle<()>,
}

/// What neither router nor model board knows: how far the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    Stopping,
    Stopped,
}

impl Registration {
    /// Starts telling. Needs a tokio runtime.
    pub(crate) fn start(identity: Identity, router: &JobRouter, models: &ModelBoard) -> Self {
        let (phase, phases) = watch::channel(Phase::Serving);
        let teller = Teller {
            poster: Poster::new(&identity),
            identity,
            phase: phases,
            changes: models.changes(),
            models: models.clone(),
            jobs: router.activity(),
            failures: 0,
        };
        Self { phase, task: tokio::spawn(teller.run()) }
    }

    /// The worker takes nothing new from now on.
    pub(crate) fn stopping(&self) {
        self.phase.send_replace(Phase::Stopping);
    }

    /// The worker is gone. Waits for the last heartbeat, but not for long.
    pub(crate) async fn stopped(self) {
        self.phase.send_replace(Phase::Stopped);
        if timeout(FAREWELL, self.task).await.is_err() {
            tracing::warn!("the router above could not be told that the worker is gone");
        }
    }
}

/// The task.
struct Teller {
    identity: Identity,
    poster: Poster,
    phase: watch::Receiver<Phase>,
    models: ModelBoard,
    changes: BoardChanges,
    jobs: watch::Receiver<usize>,
    /// In a row.
    failures: u32,
}

impl Teller {
    async fn run(mut self) {
        loop {
            let status = self.status();
            let sent = Instant::now();
            self.tell(status).await;
            if status == WorkerStatus::Stopped {
                return;
            }
            let due = match self.failures {
                0 => sent + self.identity.interval,
                // From the failure on: a router that keeps silent is not asked again at once.
                _ => Instant::now() + self.retry_after(),
            };
            sleep_until(sent + SHORTEST_GAP).await;
            self.wait(status, due).await;
        }
    }

    /// Waits until `due` or until the status is another. While the router fails, only the end of the worker is told
    /// before the next attempt.
    async fn wait(&mut self, told: WorkerStatus, due: Instant) {
        loop {
            let status = self.status();
            let urgent = matches!(status, WorkerStatus::Stopping | WorkerStatus::Stopped);
            if status != told && (self.failures == 0 || urgent) {
                return;
            }
            // The senders live as long as the worker; without them only time is left.
            tokio::select! {
                () = sleep_until(due) => return,
                Ok(()) = self.phase.changed() => {}
                true = self.changes.next() => {}
                Ok(()) = self.jobs.changed() => {}
            }
        }
    }

    fn status(&mut self) -> WorkerStatus {
        let jobs = *self.jobs.borrow_and_update();
        match (*self.phase.borrow_and_update(), self.models.status()) {
            (Phase::Stopped, _) => WorkerStatus::Stopped,
            (Phase::Stopping, _) => WorkerStatus::Stopping,
            (Phase::Serving, ModelStatus::Loading) => WorkerStatus::Starting,
            (Phase::Serving, ModelStatus::Ready(_)) if jobs > 0 => WorkerStatus::Busy,
            (Phase::Serving, ModelStatus::Ready(_)) => WorkerStatus::Ready,
            // Failed: the process is about to end.
            (Phase::Serving, _) => WorkerStatus::Stopping,
        }
    }

    async fn tell(&mut self, status: WorkerStatus) {
        let capabilities = match self.models.status() {
            ModelStatus::Ready(_) => self.models.models(),
            _ => Vec::new(),
        };
        let usable = capabilities.iter().filter(|model| model.impossible.is_none());
        let capabilities = usable.map(|model| (*model.capabilities).clone()).collect();
        let Identity { id, model, device, port, .. } = self.identity.clone();
        let heartbeat = Heartbeat {
            worker: WorkerInfo {
                id,
                model_id: model,
                device,
                host: String::new(),
                port,
                status,
                implementation: "sd-worker".into(),
                version: env!("CARGO_PKG_VERSION").into(),
                capabilities,
            },
            timestamp: humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string(),
        };
        match self.poster.post(heartbeat).await {
            Ok(answer) => {
                if self.failures > 0 {
                    tracing::info!(after = self.failures, "the router above answers again");
                }
                self.failures = 0;
                tracing::debug!(?status, answer = answer.status, message = answer.message, "heartbeat");
            }
            Err(reason) => {
                self.failures = self.failures.saturating_add(1);
                // Once is enough for people; the retries are for whoever looks closer.
                match self.failures {
                    1 => tracing::warn!(
                        "the router above was not told that the worker is {status:?}: {reason}"
                    ),
                    failures => tracing::debug!(failures, "the router above: {reason}"),
                }
            }
        }
    }

    /// Twice as long after each failure, up to the interval; drawn from its upper half, so that workers that lost the
    /// same router do not come back at the same time.
    fn retry_after(&self) -> Duration {
        let doubled = FIRST_RETRY * 2u32.saturating_pow(self.failures.saturating_sub(1).min(16));
        let longest = doubled.min(self.identity.interval);
        let random = f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
        longest.mul_f64(0.5 + random / 2.0)
    }
}
