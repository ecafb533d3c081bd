//! Those who follow a job, and what their leaving means to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::job::Job;

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
    /// Whether the worker goes down: then it is the worker that leaves, not the listener.
    closed: Arc<AtomicBool>,
}

impl Listening {
    pub(crate) fn to(job: Arc<Job>, closed: Arc<AtomicBool>) -> Self {
        job.listeners.count.fetch_add(1, Ordering::SeqCst);
        Self { job, closed }
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
        // A job that is over stays as it ended.
        if last && counts && self.job.cancel().is_some() {
            tracing::info!(job = %self.job.id, "nobody listens any more: cancelled");
        }
    }
}
