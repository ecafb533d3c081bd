//! Those who follow a job, and what their leaving means to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::job::Job;
use crate::registry::JobRegistry;

/// How many follow a job, and whether it ends when they have all left.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    count: AtomicUsize,
    decisive: AtomicBool,
}

impl Listeners {
    /// From now on the job is cancelled when the last listener leaves: `cancel_on_disconnect`.
    pub(crate) fn take_the_job_along(&self) {
        self.decisive.store(true, Ordering::SeqCst);
    }
}

/// One who follows a job, until dropped.
#[derive(Debug)]
pub(crate) struct Listening {
    job: Arc<Job>,
    registry: JobRegistry,
    /// Whether the worker goes down: then it is the worker that leaves, not the listener.
    closed: Arc<AtomicBool>,
}

impl Listening {
    pub(crate) fn to(job: Arc<Job>, registry: JobRegistry, closed: Arc<AtomicBool>) -> Self {
        job.listeners.count.fetch_add(1, Ordering::SeqCst);
        Self { job, registry, closed }
    }

    pub(crate) fn job(&self) -> Arc<Job> {
        Arc::clone(&self.job)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let listeners = &self.job.listeners;
        let last = listeners.count.fetch_sub(1, Ordering::SeqCst) == 1;
        let counts = listeners.decisive.load(Ordering::SeqCst) && !self.closed.load(Ordering::SeqCst);
        if !last || !counts {
            return;
        }
        let (id, registry) = (self.job.id.clone(), self.registry.clone());
        // The end of a waiting job is written down: whoever serves the listeners shall not wait for that.
        let cancelling = thread::Builder::new().name("cancel".into()).spawn(move || {
            // A job that is over stays as it ended.
            if registry.cancel(&id).is_ok() {
                tracing::info!(job = %id, "nobody listens any more: cancelled");
            }
        });
        if let Err(error) = cancelling {
            tracing::error!(job = %self.job.id, %error, "a job that nobody listens to goes on");
        }
    }
}
