//! The jobs that the worker remembers: those that live in memory, those that are over in the store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use operations_contract::{
    ErrorCode, ErrorDetail, ImageData, JobEvent, JobId, JobState, JobView, NarrationLevel, Operation,
    Priority,
};

use crate::activity::Activity;
use crate::idempotency::IdempotencyKey;
use crate::job::{Ended, Job, Outcome, StoredImage};
use crate::router::CancelError;
use crate::store::{
    Events, JobPage, JobQuery, Journal, Known, NewJob, Restored, Store, StoreError, Taken, Totals,
};

/// How long jobs that are over are remembered: until the first of these bounds is reached. The job that ended last is
/// kept whatever it weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Time since the end.
    pub max_age: Duration,
    /// Number of jobs that are over.
    pub max_jobs: usize,
    /// Bytes of their images and events.
    pub max_bytes: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(3600), max_jobs: 256, max_bytes: 512 << 20 }
    }
}

/// All jobs: waiting, running, and for a while those that are over. Cloning shares it.
///
/// Whatever concerns a job that is over asks the [`Store`], and so may wait for the disk.
#[derive(Debug, Clone)]
pub struct JobRegistry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    retention: Retention,
    activity: Activity,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Those that are not over, or whose end is not written down.
    live: HashMap<JobId, Arc<Job>>,
    /// Those of the last process, until somebody takes them up.
    restored: Vec<Unfinished>,
    /// Somebody is at it.
    taking_up: bool,
    /// Those whose end could not be written down: they stay in memory until it can.
    unsaved: Vec<Arc<Job>>,
}

/// A job of the last process that waits to be taken up.
#[derive(Debug)]
pub(crate) struct Unfinished {
    pub(crate) job: Arc<Job>,
    pub(crate) journal: Journal,
    /// Why it cannot go on, if it cannot.
    pub(crate) operation: Result<Operation, ErrorDetail>,
    pub(crate) has_inputs: bool,
    pub(crate) caller: Option<Arc<str>>,
}

/// A job on its way into the registry.
pub(crate) struct Submission<'a> {
    pub(crate) view: JobView,
    pub(crate) priority: Priority,
    pub(crate) caller: Option<&'a str>,
    pub(crate) key: Option<&'a IdempotencyKey>,
    pub(crate) operation: &'a Operation,
    pub(crate) inputs: &'a [(String, ImageData)],
    pub(crate) notes: Vec<String>,
}

/// What became of a submission.
pub(crate) enum Admission {
    New(Arc<Job>, Journal),
    /// The same was submitted before.
    Known(Known),
    /// Something else was submitted under the same key.
    OtherBody(JobId),
}

impl JobRegistry {
    /// The jobs of a store. Those that the last process did not finish wait for
    /// [`JobRouter::resume`](crate::JobRouter::resume).
    ///
    /// # Errors
    /// When the store cannot be read, or has no room to note that they go on.
    pub fn new(store: Store, retention: Retention) -> Result<Self, StoreError> {
        let mut state = State::default();
        for restored in store.restore()? {
            let Restored {
                journal, view, events, next_event, reserved, operation, has_inputs, caller, ..
            } = restored;
            let priority = operation.as_ref().map_or(Priority::Normal, |known| known.job().priority);
            let job = Job::waiting(view, priority, journal.clone(), events, (next_event, reserved));
            let job = Arc::new(job);
            state.live.insert(job.id.clone(), Arc::clone(&job));
            let caller = caller.map(Arc::from);
            state.restored.push(Unfinished { job, journal, operation, has_inputs, caller });
        }
        let registry = Self(Arc::new(Inner {
            store,
            retention,
            activity: Activity::default(),
            state: Mutex::new(state),
        }));
        registry.evict();
        Ok(registry)
    }

    /// A registry whose jobs are gone with the process, with the usual [`Retention`].
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::new(Store::in_memory()?, Retention::default())
    }

    /// Nothing panics while it holds the state, and if something did, the state would still be whole. Nobody waits for
    /// the disk while holding it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many jobs the engine has.
    pub(crate) fn activity(&self) -> &Activity {
        &self.0.activity
    }

    /// Takes a new job in and tells it its position. It is written down when this returns.
    pub(crate) fn accept(&self, submission: Submission<'_>) -> Result<Admission, StoreError> {
        let Submission { view, priority, caller, key, operation, inputs, notes } = submission;
        let before = |other: &&Arc<Job>| other.priority >= priority && other.state() == JobState::Queued;
        let position = self.state().live.values().filter(before).count();
        let notes =
            notes.into_iter().map(|message| JobEvent::Narration { level: NarrationLevel::Info, message });
        let events: Events = (1..).zip(std::iter::once(JobEvent::Queued { position }).chain(notes)).collect();
        let next_event = events.len() as u64 + 1;
        let taken = self.with_room(|| {
            // While results wait for room, nothing new is begun: they would pile up in memory.
            self.save_unsaved()?;
            let operation = operation.clone();
            self.0.store.accept(NewJob { view: &view, caller, key, operation, inputs, events: &events })
        });
        Ok(match taken? {
            Taken::Known(known) => Admission::Known(known),
            Taken::OtherBody(id) => Admission::OtherBody(id),
            Taken::New { journal, reserved } => {
                let ids = (next_event, reserved);
                let job = Arc::new(Job::waiting(view, priority, journal.clone(), events, ids));
                self.state().live.insert(job.id.clone(), Arc::clone(&job));
                Admission::New(job, journal)
            }
        })
    }

    /// What the caller submitted before under this key.
    pub(crate) fn known(
        &self,
        caller: Option<&str>,
        key: &IdempotencyKey,
    ) -> Result<Option<Admission>, StoreError> {
        // The key of a job that is not to be kept is free.
        self.evict();
        Ok(self.0.store.known(caller, key)?.and_then(|taken| match taken {
            Taken::Known(known) => Some(Admission::Known(known)),
            Taken::OtherBody(id) => Some(Admission::OtherBody(id)),
            Taken::New { .. } => None,
        }))
    }

    /// Forgets a job that could not be handed over.
    pub(crate) fn forget(&self, job: &Arc<Job>, journal: &Journal) {
        self.state().live.remove(&job.id);
        if let Err(error) = self.0.store.forget(journal) {
            tracing::error!(job = %job.id, %error, "a job that was not accepted stays written down");
        }
    }

    /// The jobs of the last process, once.
    pub(crate) fn take_restored(&self) -> Vec<Unfinished> {
        let mut state = self.state();
        state.taking_up = true;
        std::mem::take(&mut state.restored)
    }

    /// Whether jobs of the last process wait to be taken up.
    pub(crate) fn has_restored(&self) -> bool {
        let state = self.state();
        state.taking_up || !state.restored.is_empty()
    }

    /// All of the last process are in the queue, or over.
    pub(crate) fn all_taken_up(&self) {
        self.state().taking_up = false;
    }

    fn live(&self, id: &JobId) -> Option<Arc<Job>> {
        self.state().live.get(id).cloned()
    }

    /// A job, with its story.
    pub(crate) fn find(&self, id: &JobId) -> Option<Arc<Job>> {
        self.live(id).or_else(|| {
            self.evict();
            let (view, events) = told(id, self.0.store.story(id))?;
            Some(Arc::new(Job::over(view, events)))
        })
    }

    /// A job that is not over.
    pub(crate) fn living(&self, id: &JobId) -> Option<JobView> {
        self.live(id).map(|job| job.view()).filter(|view| !view.state.is_terminal())
    }

    pub(crate) fn view(&self, id: &JobId) -> Option<JobView> {
        self.live(id).map(|job| job.view()).or_else(|| {
            self.evict();
            told(id, self.0.store.view(id))
        })
    }

    pub(crate) fn image(&self, id: &JobId, index: usize) -> Option<StoredImage> {
        self.live(id).and_then(|job| job.image(index)).or_else(|| {
            self.evict();
            told(id, self.0.store.image(id, index))
        })
    }

    pub(crate) fn list(&self, query: &JobQuery) -> Result<JobPage, StoreError> {
        self.evict();
        let mut page = self.0.store.list(query)?;
        for view in &mut page.jobs {
            if let Some(job) = self.live(&view.job_id) {
                *view = job.view();
            }
        }
        page.jobs.retain(|view| query.wants(view.state));
        Ok(page)
    }

    pub(crate) fn cancel(&self, id: &JobId) -> Result<JobState, CancelError> {
        let Some(job) = self.live(id) else {
            return Err(self.view(id).map_or(CancelError::NotFound, |_| CancelError::AlreadyOver));
        };
        let (state, ended) = job.cancel().ok_or(CancelError::AlreadyOver)?;
        if let Some(ended) = ended {
            self.finished(&job, &ended);
        }
        Ok(state)
    }

    /// Ends the stories of all jobs that are not over: the worker cannot wait for them. They go on in the next process where
    /// the store lasts, and have failed where it does not. Gives how many have.
    pub(crate) fn abandon(&self) -> usize {
        let told = |message: &str| ErrorDetail::new(ErrorCode::ShuttingDown, message);
        let later = told("the worker stopped before the job was done; it goes on when the worker is back");
        let live: Vec<Arc<Job>> = self.state().live.values().cloned().collect();
        let lost = |job: &&Arc<Job>| {
            if job.put_off(&later) {
                return false;
            }
            let ended = job.end(Outcome::Failed(told("the worker stopped before the job was done")));
            ended.inspect(|ended| self.finished(job, ended)).is_some()
        };
        live.iter().filter(lost).count()
    }

    /// A job is over.
    pub(crate) fn finished(&self, job: &Arc<Job>, ended: &Ended) {
        {
            let mut state = self.state();
            match ended.saved {
                true => drop(state.live.remove(&job.id)),
                false => state.unsaved.push(Arc::clone(job)),
            }
        }
        self.tidy();
    }

    /// Forgets what is not to be kept any longer, and writes down what could not be written down before.
    pub(crate) fn tidy(&self) {
        if let Err(error) = self.with_room(|| self.save_unsaved()) {
            tracing::warn!(%error, "results are kept in memory until they can be written down");
        }
        self.evict();
    }

    /// Writes something down. Where there is no room for it, what is not to be kept any longer makes way first.
    fn with_room<T>(&self, write: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
        match write() {
            Err(StoreError::Full) => {
                self.evict();
                self.shrink();
                write()
            }
            outcome => outcome,
        }
    }

    /// Gives room that was freed back to the disk.
    pub(crate) fn shrink(&self) {
        if let Err(error) = self.0.store.shrink() {
            tracing::warn!(%error, "free room could not be given back to the disk");
        }
    }

    fn save_unsaved(&self) -> Result<(), StoreError> {
        let mut unsaved = std::mem::take(&mut self.state().unsaved);
        while let Some(job) = unsaved.first() {
            if let Err(error) = self.save(job) {
                self.state().unsaved.append(&mut unsaved);
                return Err(error);
            }
            let job = unsaved.remove(0);
            self.state().live.remove(&job.id);
        }
        Ok(())
    }

    /// Writes an end down, unless the job is older by now than any that is kept.
    fn save(&self, job: &Job) -> Result<(), StoreError> {
        match job.since_its_end() >= self.0.retention.max_age {
            true => job.forget(),
            false => job.save(),
        }
    }

    fn evict(&self) {
        let unsaved = self.state().unsaved.iter().fold(Totals::default(), |sum, job| sum + job.weight());
        if let Err(error) = self.0.store.evict(&self.0.retention, unsaved) {
            tracing::warn!(%error, "jobs that are over could not be forgotten");
        }
    }
}

/// What the store answered; that it could not is for the operator.
fn told<T>(id: &JobId, answer: Result<Option<T>, StoreError>) -> Option<T> {
    answer.unwrap_or_else(|error| {
        tracing::error!(job = %id, %error, "a job cannot be read");
        None
    })
}
