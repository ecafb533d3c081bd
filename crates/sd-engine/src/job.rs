//! One job: its state, its story, and those who follow it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use operations_contract::{
    ErrorCode, ErrorDetail, EventImage, ImageFormat, ImageView, JobEvent, JobId, JobProgress, JobState,
    JobView, NarrationLevel, Priority, Terminator, Timings,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::activity::Present;
use crate::listeners::{Listeners, Listening};
use crate::metrics;
use crate::registry::JobRegistry;
use crate::spans;
use crate::store::{self, Events, Journal, StoreError, Totals};

/// So many ids are always left of those that are reserved: for the end, and for what is said about it.
const SPARE_IDS: u64 = 4;

/// One job, shared by the registry, the engine and the subscribers.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) priority: Priority,
    pub(crate) cancellation: CancellationToken,
    pub(crate) listeners: Listeners,
    /// Where it is written down; absent once it was read back from there.
    journal: Option<Journal>,
    /// Nobody waits for the disk while holding it.
    record: Mutex<Record>,
    /// How many events there are, or one more when there will be no others.
    told: watch::Sender<usize>,
}

#[derive(Debug)]
struct Record {
    view: JobView,
    /// With their ids, which grow.
    events: Events,
    /// How many of them are written down.
    written: usize,
    next_event: u64,
    /// Ids below this one may be told: the store gives them to nobody else.
    reserved: u64,
    started: Option<Instant>,
    phase: Phase,
}

#[derive(Debug, PartialEq)]
enum Phase {
    /// It lives.
    Open,
    /// Its end is decided and is being written down.
    Ending,
    /// Its story has ended with this word.
    Over(Terminator),
}

/// How a job ends.
#[derive(Debug)]
pub(crate) enum Outcome {
    Completed { images: Vec<EventImage>, timings: Timings },
    Failed(ErrorDetail),
    Cancelled,
}

/// What is to be known of an end.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Whether it is written down.
    pub(crate) saved: bool,
}

/// One image of a finished job.
#[derive(Debug, Clone)]
pub struct StoredImage {
    /// The file's bytes.
    pub bytes: Arc<[u8]>,
    /// Its format.
    pub format: ImageFormat,
}

impl Job {
    /// A job that waits, and what it has told so far. Ids from `next_event` to below `reserved` are its own.
    pub(crate) fn waiting(
        view: JobView,
        priority: Priority,
        journal: Journal,
        events: Events,
        (next_event, reserved): (u64, u64),
    ) -> Self {
        let (told, written) = (watch::Sender::new(events.len()), events.len());
        let id = view.job_id.clone();
        let record =
            Record { view, events, written, next_event, reserved, started: None, phase: Phase::Open };
        let cancellation = CancellationToken::new();
        let (listeners, record) = (Listeners::default(), Mutex::new(record));
        Self { id, priority, cancellation, listeners, journal: Some(journal), record, told }
    }

    /// A job that is over, with its story.
    pub(crate) fn over(view: JobView, events: Events) -> Self {
        let phase = Phase::Over(terminator(&view));
        let (id, written) = (view.job_id.clone(), events.len());
        let told = watch::Sender::new(written + 1);
        let record = Record { view, events, written, next_event: 0, reserved: 0, started: None, phase };
        let (priority, cancellation) = (Priority::Normal, CancellationToken::new());
        let (listeners, record) = (Listeners::default(), Mutex::new(record));
        Self { id, priority, cancellation, listeners, journal: None, record, told }
    }

    /// Nothing panics while it holds the record, and if something did, the record would still be whole.
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn view(&self) -> JobView {
        self.record().view.clone()
    }

    pub(crate) fn state(&self) -> JobState {
        self.record().view.state
    }

    /// How it ended; the state that it has, where it has not.
    fn outcome(&self) -> (JobState, Option<ErrorCode>) {
        let record = self.record();
        (record.view.state, record.view.error.as_ref().map(|error| error.code))
    }

    /// Whether its end is at least decided.
    fn is_over(&self) -> bool {
        self.record().phase != Phase::Open
    }

    pub(crate) fn image(&self, index: usize) -> Option<StoredImage> {
        let record = self.record();
        let Some((_, JobEvent::Complete { images, .. })) = record.events.last() else { return None };
        images.get(index).map(|image| StoredImage { bytes: image.image.shared(), format: image.format })
    }

    /// Adds to the story of a job that is not over. Nothing is written down but, rarely, which ids are used.
    fn tell(&self, event: JobEvent) {
        if let Err(error) = self.reserve_ids() {
            // Better untold than under an id that another event may get.
            tracing::warn!(job = %self.id, %error, "an event is left out");
            return;
        }
        let mut record = self.record();
        if record.phase != Phase::Open {
            return;
        }
        if let JobEvent::Progress { step, total_steps, percent, .. } = event {
            record.view.progress = Some(JobProgress { step, total_steps, percent });
        }
        record.push(event);
        self.announce(&record);
    }

    fn reserve_ids(&self) -> Result<(), StoreError> {
        let next = {
            let record = self.record();
            if record.next_event + SPARE_IDS < record.reserved {
                return Ok(());
            }
            record.next_event
        };
        let Some(journal) = &self.journal else { return Ok(()) };
        let reserved = journal.reserve(next)?;
        self.record().reserved = reserved;
        Ok(())
    }

    /// Queued becomes running; false if it is no longer queued.
    fn start(&self, event: JobEvent) -> bool {
        let (view, told) = {
            let mut record = self.record();
            let queued = record.phase == Phase::Open && record.view.state == JobState::Queued;
            if !queued || self.cancellation.is_cancelled() {
                return false;
            }
            record.view.state = JobState::Running;
            record.view.started_ms = Some(unix_ms());
            record.started = Some(Instant::now());
            metrics::started(&record.view);
            (record.view.clone(), record.unwritten(std::slice::from_ref(&event)))
        };
        let written = self.journal.as_ref().map_or(Ok(()), |journal| journal.start(&view, &told));
        if let Err(error) = &written {
            // It would begin as one that waits after a restart; until then nothing is missing.
            tracing::warn!(job = %self.id, %error, "the start of a job was not written down");
        }
        let mut record = self.record();
        record.push(event);
        if written.is_ok() {
            record.written = record.events.len();
        }
        self.announce(&record);
        true
    }

    /// The one place where a job ends; `None` if it has already. Whoever hears of the end can rely on it: it is written
    /// down before.
    pub(crate) fn end(&self, outcome: Outcome) -> Option<Ended> {
        let (view, event, told) = {
            let mut record = self.record();
            if record.phase != Phase::Open {
                return None;
            }
            record.phase = Phase::Ending;
            // Whoever was told that the job is cancelled must not find images.
            let outcome = if self.cancellation.is_cancelled() { Outcome::Cancelled } else { outcome };
            if matches!(outcome, Outcome::Cancelled) {
                self.cancellation.cancel();
            }
            let run = record.started.map(|started| started.elapsed());
            let (view, event) = record.ended(outcome, run);
            let told = record.unwritten(std::slice::from_ref(&event));
            (view, event, told)
        };
        let written = self.journal.as_ref().map_or(Ok(()), |journal| journal.finish(&view, &told));
        let mut record = self.record();
        if let Err(error) = &written {
            tracing::error!(job = %self.id, %error, "the end of a job was not written down");
            let message = format!("{error}: the end of the job is not written down yet");
            record.push(JobEvent::Narration { level: NarrationLevel::Warn, message });
        }
        record.push(event);
        if written.is_ok() {
            record.written = record.events.len();
        }
        metrics::ended(&view);
        record.phase = Phase::Over(terminator(&view));
        record.view = view;
        self.announce(&record);
        Some(Ended { saved: written.is_ok() })
    }

    /// Writes down the end of a job that could not be written down when it was told.
    pub(crate) fn save(&self) -> Result<(), StoreError> {
        let (view, told) = {
            let record = self.record();
            (record.view.clone(), record.unwritten(&[]))
        };
        if let Some(journal) = &self.journal {
            journal.finish(&view, &told)?;
        }
        let mut record = self.record();
        record.written = record.events.len();
        Ok(())
    }

    /// Forgets a job whose end could not be written down.
    pub(crate) fn forget(&self) -> Result<(), StoreError> {
        self.journal.as_ref().map_or(Ok(()), |journal| journal.store().forget(journal))
    }

    /// For how long it is over; 0 if it is not.
    pub(crate) fn since_its_end(&self) -> Duration {
        let finished = self.record().view.finished_ms;
        finished.map_or(Duration::ZERO, |end| Duration::from_millis(unix_ms().saturating_sub(end)))
    }

    /// What it weighs when it is kept.
    pub(crate) fn weight(&self) -> Totals {
        Totals { jobs: 1, bytes: store::weight(&self.record().events) }
    }

    /// Asks for an end. The state afterwards and the end, if it has come; `None` if the job was over already.
    pub(crate) fn cancel(&self) -> Option<(JobState, Option<Ended>)> {
        let state = {
            let record = self.record();
            if record.phase != Phase::Open {
                return None;
            }
            self.cancellation.cancel();
            record.view.state
        };
        // A waiting job ends at once; a running one is the engine's, which looks before each step.
        let ended = if state == JobState::Queued { self.end(Outcome::Cancelled) } else { None };
        Some((self.state(), ended))
    }

    /// Ends a job that waits, because its deadline has passed.
    pub(crate) fn expire(&self) -> Option<Ended> {
        let detail = ErrorDetail::new(ErrorCode::Timeout, "the deadline passed before the job's turn");
        (self.state() == JobState::Queued).then(|| self.end(Outcome::Failed(detail)))?
    }

    /// Ends the story without ending the job: the next process goes on with it. False if it cannot.
    pub(crate) fn put_off(&self, detail: &ErrorDetail) -> bool {
        let durable = self.journal.as_ref().is_some_and(|journal| journal.store().is_durable());
        let mut record = self.record();
        if !durable || record.phase != Phase::Open {
            return false;
        }
        record.push(JobEvent::Error(detail.clone()));
        record.phase = Phase::Over(Terminator::Error(detail.message.clone()));
        self.announce(&record);
        true
    }

    fn announce(&self, record: &Record) {
        let over = usize::from(matches!(record.phase, Phase::Over(_)));
        self.told.send_replace(record.events.len() + over);
    }
}

impl Record {
    fn push(&mut self, event: JobEvent) {
        self.events.push((self.next_event, event));
        self.next_event += 1;
    }

    /// What is not written down yet, and what comes next.
    fn unwritten(&self, next: &[JobEvent]) -> Events {
        let next = (self.next_event..).zip(next.iter().cloned());
        self.events[self.written..].iter().cloned().chain(next).collect()
    }

    /// The job as it is with this outcome, and the event that tells it.
    fn ended(&self, outcome: Outcome, run: Option<Duration>) -> (JobView, JobEvent) {
        let mut view = self.view.clone();
        let (state, event) = match outcome {
            Outcome::Completed { images, timings } => {
                view.images = images.iter().enumerate().map(image_view).collect();
                let elapsed_ms = run.map_or(0, millis);
                (JobState::Completed, JobEvent::Complete { images, elapsed_ms, timings })
            }
            Outcome::Failed(detail) => (JobState::Failed, JobEvent::Error(detail)),
            Outcome::Cancelled => {
                (JobState::Cancelled, JobEvent::error(ErrorCode::Cancelled, "the job was cancelled"))
            }
        };
        if let JobEvent::Error(detail) = &event {
            view.error = Some(detail.clone());
        }
        view.state = state;
        view.finished_ms = Some(unix_ms());
        (view, event)
    }
}

fn terminator(view: &JobView) -> Terminator {
    match (view.state, &view.error) {
        (JobState::Completed, _) => Terminator::Done,
        (JobState::Cancelled, _) => Terminator::Cancelled,
        (_, Some(detail)) => Terminator::Error(detail.message.clone()),
        (_, None) => Terminator::Error(String::new()),
    }
}

/// The engine's end of a job. If it is dropped before the job is over, the job fails, or waits for the next process:
/// nobody waits for ever.
#[derive(Debug)]
pub(crate) struct JobSink {
    job: Arc<Job>,
    registry: JobRegistry,
    /// The job in logs and traces.
    span: Span,
    _present: Present,
}

impl JobSink {
    pub(crate) fn new(job: Arc<Job>, registry: JobRegistry, span: Span) -> Self {
        let _present = registry.activity().enter();
        Self { job, registry, span, _present }
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    pub(crate) fn id(&self) -> &JobId {
        &self.job.id
    }

    pub(crate) fn state(&self) -> JobState {
        self.job.state()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.job.is_over()
    }

    pub(crate) fn start(&self, event: JobEvent) -> bool {
        self.job.start(event)
    }

    pub(crate) fn tell(&self, event: JobEvent) {
        self.job.tell(event);
    }

    pub(crate) fn end(&self, outcome: Outcome) {
        if let Some(ended) = self.job.end(outcome) {
            self.registry.finished(&self.job, &ended);
        }
    }

    pub(crate) fn fail(&self, code: ErrorCode, message: impl Into<String>) {
        self.end(Outcome::Failed(ErrorDetail::new(code, message)));
    }

    /// The deadline has passed before the job's turn.
    pub(crate) fn expire(&self) {
        if let Some(ended) = self.job.expire() {
            self.registry.finished(&self.job, &ended);
        }
    }

    /// The worker goes down before the job's turn: the job waits in the store, or fails where there is none that lasts.
    pub(crate) fn refuse(&self) {
        let later = "the worker shut down before the job's turn; it runs when the worker is back";
        if !self.job.put_off(&ErrorDetail::new(ErrorCode::ShuttingDown, later)) {
            self.fail(ErrorCode::ShuttingDown, "the worker shut down before the job's turn");
        }
    }
}

impl Drop for JobSink {
    fn drop(&mut self) {
        let detail = ErrorDetail::new(ErrorCode::InferenceFailed, "the engine dropped the job");
        let waits = self.job.state() == JobState::Queued;
        let put_off = waits && self.job.put_off(&detail);
        if !put_off && !self.is_over() {
            self.end(Outcome::Failed(detail));
        }
        let (state, error) = self.job.outcome();
        spans::ended(&self.span, state, error);
    }
}

/// What a subscriber gets.
#[derive(Debug, Clone, PartialEq)]
pub enum JobUpdate {
    /// The next event.
    Event {
        /// Counts from 1, and leaps where the worker was started anew; subscribing `after` it resumes here.
        id: u64,
        /// What happened.
        event: JobEvent,
    },
    /// There will be no more.
    End(Terminator),
}

/// The story of one job: what happened so far, then what happens, then one end.
#[derive(Debug)]
pub struct JobUpdates {
    job: Arc<Job>,
    told: watch::Receiver<usize>,
    /// Events up to this one are not told.
    after: u64,
    /// Where in the story it stands.
    next: usize,
    ended: bool,
    /// Counts as long as this lives.
    _listening: Listening,
}

impl JobUpdates {
    pub(crate) fn new(listening: Listening, after: u64) -> Self {
        let job = listening.job();
        let told = job.told.subscribe();
        Self { job, told, after, next: 0, ended: false, _listening: listening }
    }

    /// The id of a job's last event, where there will be no further ones, from a later process neither.
    pub fn last_id(&self) -> Option<u64> {
        let record = self.job.record();
        let over = matches!(record.phase, Phase::Over(_)) && record.view.state.is_terminal();
        over.then(|| record.events.last().map_or(0, |(id, _)| *id))
    }

    /// Waits for the next update; `None` after the end. Dropping the future loses nothing. It needs no particular
    /// runtime.
    pub async fn next(&mut self) -> Option<JobUpdate> {
        loop {
            self.told.mark_unchanged();
            if let Some(update) = self.now() {
                return Some(update);
            }
            if self.ended || self.told.changed().await.is_err() {
                return None;
            }
        }
    }

    /// The next update, if it has happened already.
    pub fn now(&mut self) -> Option<JobUpdate> {
        if self.ended {
            return None;
        }
        let record = self.job.record();
        while let Some((id, event)) = record.events.get(self.next) {
            self.next += 1;
            if *id > self.after {
                return Some(JobUpdate::Event { id: *id, event: event.clone() });
            }
        }
        let Phase::Over(end) = &record.phase else { return None };
        self.ended = true;
        Some(JobUpdate::End(end.clone()))
    }
}

fn image_view((index, image): (usize, &EventImage)) -> ImageView {
    ImageView {
        index,
        format: image.format,
        seed: image.seed,
        width: image.width,
        height: image.height,
        bytes: image.image.len(),
    }
}

pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
