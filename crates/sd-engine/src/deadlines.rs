//! Ends jobs that wait too long, on a thread of its own: the engine may be in the middle of a step.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::job::Job;
use crate::registry::JobRegistry;

/// The deadlines of jobs that wait. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deadlines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The next one first.
    ahead: BinaryHeap<Reverse<Deadline>>,
    stopping: bool,
}

#[derive(Debug)]
struct Deadline {
    at: Instant,
    /// A job that is over is not kept for its deadline.
    job: Weak<Job>,
    registry: JobRegistry,
}

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct DeadlineThread {
    deadlines: Deadlines,
    thread: Option<JoinHandle<()>>,
}

impl DeadlineThread {
    pub(crate) fn start(deadlines: Deadlines) -> std::io::Result<Self> {
        let own = deadlines.clone();
        let thread = thread::Builder::new().name("sd-deadlines".into()).spawn(move || own.run())?;
        Ok(Self { deadlines, thread: Some(thread) })
    }
}

impl Drop for DeadlineThread {
    fn drop(&mut self) {
        self.deadlines.state().stopping = true;
        self.deadlines.0.changed.notify_all();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of deadlines panicked");
        }
    }
}

impl Deadlines {
    /// Nothing panics while it holds the state, and if something did, the state would still be whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the job at that time, if it still waits then.
    pub(crate) fn watch(&self, at: Instant, job: &Arc<Job>, registry: &JobRegistry) {
        let mut state = self.state();
        if state.ahead.len() == state.ahead.capacity() {
            state.ahead.retain(|Reverse(deadline)| deadline.job.strong_count() > 0);
        }
        let (job, registry) = (Arc::downgrade(job), registry.clone());
        state.ahead.push(Reverse(Deadline { at, job, registry }));
        self.0.changed.notify_all();
    }

    fn run(&self) {
        while let Some(Deadline { job, registry, .. }) = self.next() {
            // An end is written down: not under the lock.
            if let Some(job) = job.upgrade()
                && let Some(ended) = job.expire()
            {
                registry.finished(&job, &ended);
            }
        }
    }

    /// Waits for the next one to pass; `None`: the thread is to end.
    fn next(&self) -> Option<Deadline> {
        let mut state = self.state();
        loop {
            if state.stopping {
                return None;
            }
            let left =
                state.ahead.peek().map(|Reverse(next)| next.at.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => return state.ahead.pop().map(|Reverse(deadline)| deadline),
                Some(left) => {
                    let waited = self.0.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl PartialEq for Deadline {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Deadline {}

impl PartialOrd for Deadline {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Deadline {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}
