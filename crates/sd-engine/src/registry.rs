//! The jobs that the worker remembers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use operations_contract::{JobEvent, JobState, JobView, Priority};

use crate::activity::Activity;
use crate::job::Job;

/// How long jobs that are over are remembered: until the first of these bounds is reached. The job that ended last is
/// kept whatever it weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Time since the end.
    pub max_age: Duration,
    /// Number of jobs that are over.
    pub max_jobs: usize,
    /// Bytes of their images.
    pub max_bytes: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(3600), max_jobs: 256, max_bytes: 512 << 20 }
    }
}

/// All jobs: waiting, running, and for a while those that are over. Cloning shares it.
#[derive(Debug, Clone)]
pub struct JobRegistry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    retention: Retention,
    activity: Activity,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In the order of their acceptance. There are a few hundred at most, so that a search is cheap.
    jobs: Vec<Arc<Job>>,
}

impl JobRegistry {
    /// A registry without jobs.
    pub fn new(retention: Retention) -> Self {
        Self(Arc::new(Inner { retention, activity: Activity::default(), state: Mutex::default() }))
    }

    /// Nothing panics while it holds the state, and if something did, the state would still be whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many jobs the engine has.
    pub(crate) fn activity(&self) -> &Activity {
        &self.0.activity
    }

    /// Takes a new job in and tells it its position.
    pub(crate) fn insert(&self, view: JobView, priority: Priority) -> Arc<Job> {
        let job = Arc::new(Job::new(view, priority));
        let mut state = self.state();
        state.evict(&self.0.retention);
        let before = |other: &&Arc<Job>| other.priority >= priority && other.state() == JobState::Queued;
        let position = state.jobs.iter().filter(before).count();
        job.tell(JobEvent::Queued { position });
        state.jobs.push(Arc::clone(&job));
        job
    }

    /// Forgets a job that could not be handed over.
    pub(crate) fn forget(&self, job: &Arc<Job>) {
        self.state().jobs.retain(|other| !Arc::ptr_eq(other, job));
    }

    pub(crate) fn find(&self, id: &str) -> Option<Arc<Job>> {
        let mut state = self.state();
        state.evict(&self.0.retention);
        state.jobs.iter().find(|job| job.id.as_str() == id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Job>> {
        let mut state = self.state();
        state.evict(&self.0.retention);
        state.jobs.clone()
    }

    /// A job is over.
    pub(crate) fn finished(&self) {
        self.state().evict(&self.0.retention);
    }
}

impl State {
    fn evict(&mut self, retention: &Retention) {
        let now = Instant::now();
        let mut over: Vec<(Instant, Arc<Job>)> =
            self.jobs.iter().filter_map(|job| Some((job.finished()?, Arc::clone(job)))).collect();
        over.sort_by_key(|(finished, _)| std::cmp::Reverse(*finished));
        let mut bytes = 0;
        let mut gone = Vec::new();
        for (rank, (finished, job)) in over.iter().enumerate() {
            bytes += job.bytes();
            let too_old = now.duration_since(*finished) >= retention.max_age;
            let too_heavy = rank > 0 && bytes > retention.max_bytes;
            if too_old || too_heavy || rank >= retention.max_jobs {
                gone.push(Arc::as_ptr(job));
            }
        }
        self.jobs.retain(|job| !gone.contains(&Arc::as_ptr(job)));
    }
}
