//! One job: its state, its story, and those who follow it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use operations_contract::{
    ErrorCode, ErrorDetail, EventImage, ImageFormat, ImageView, JobEvent, JobId, JobProgress, JobState,
    JobView, Priority, Terminator, Timings,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::activity::Present;
use crate::listeners::{Listeners, Listening};
use crate::metrics;
use crate::registry::JobRegistry;

/// One job, shared by the registry, the engine and the subscribers.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) priority: Priority,
    pub(crate) cancellation: CancellationToken,
    pub(crate) listeners: Listeners,
    record: Mutex<Record>,
    /// How many events there are, or one more when there will be no others.
    told: watch::Sender<usize>,
}

#[derive(Debug)]
struct Record {
    view: JobView,
    events: Vec<JobEvent>,
    started: Option<Instant>,
    finished: Option<Instant>,
}

/// How a job ends.
#[derive(Debug)]
pub(crate) enum Outcome {
    Completed { images: Vec<EventImage>, timings: Timings },
    Failed(ErrorDetail),
    Cancelled,
}

/// One image of a finished job.
#[derive(Debug, Clone)]
pub struct StoredImage {
    /// The file's bytes, shared with the registry.
    pub bytes: Arc<[u8]>,
    /// Its format.
    pub format: ImageFormat,
}

impl Job {
    pub(crate) fn new(view: JobView, priority: Priority) -> Self {
        Self {
            id: view.job_id.clone(),
            priority,
            cancellation: CancellationToken::new(),
            listeners: Listeners::default(),
            record: Mutex::new(Record { view, events: Vec::new(), started: None, finished: None }),
            told: watch::Sender::new(0),
        }
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

    pub(crate) fn finished(&self) -> Option<Instant> {
        self.record().finished
    }

    /// What its story weighs in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.record().events.iter().map(event_bytes).sum()
    }

    pub(crate) fn image(&self, index: usize) -> Option<StoredImage> {
        let record = self.record();
        let Some(JobEvent::Complete { images, .. }) = record.events.last() else { return None };
        images.get(index).map(|image| StoredImage { bytes: image.image.shared(), format: image.format })
    }

    /// Adds to the story of a job that is not over.
    pub(crate) fn tell(&self, event: JobEvent) {
        let mut record = self.record();
        if record.view.state.is_terminal() {
            return;
        }
        if let JobEvent::Progress { step, total_steps, percent, .. } = event {
            record.view.progress = Some(JobProgress { step, total_steps, percent });
        }
        record.events.push(event);
        self.announce(&record);
    }

    /// Queued becomes running; false if it is no longer queued.
    fn start(&self, event: JobEvent) -> bool {
        let mut record = self.record();
        if record.view.state != JobState::Queued || self.cancellation.is_cancelled() {
            return false;
        }
        record.view.state = JobState::Running;
        record.view.started_ms = Some(unix_ms());
        record.started = Some(Instant::now());
        metrics::started(&record.view);
        record.events.push(event);
        self.announce(&record);
        true
    }

    /// The one place where a job ends; false if it has already.
    pub(crate) fn end(&self, outcome: Outcome) -> bool {
        let mut record = self.record();
        if record.view.state.is_terminal() {
            return false;
        }
        let now = Instant::now();
        let elapsed = record.started.map_or(0, |started| millis(now - started));
        // Whoever was told that the job is cancelled must not find images.
        let outcome = if self.cancellation.is_cancelled() { Outcome::Cancelled } else { outcome };
        let (state, event) = match outcome {
            Outcome::Completed { images, timings } => {
                record.view.images = images.iter().enumerate().map(image_view).collect();
                (JobState::Completed, JobEvent::Complete { images, elapsed_ms: elapsed, timings })
            }
            Outcome::Failed(detail) => (JobState::Failed, JobEvent::Error(detail)),
            Outcome::Cancelled => {
                self.cancellation.cancel();
                (JobState::Cancelled, JobEvent::error(ErrorCode::Cancelled, "the job was cancelled"))
            }
        };
        if let JobEvent::Error(detail) = &event {
            record.view.error = Some(detail.clone());
        }
        record.view.state = state;
        record.view.finished_ms = Some(unix_ms());
        record.finished = Some(now);
        metrics::ended(&record.view);
        record.events.push(event);
        self.announce(&record);
        true
    }

    /// Asks for an end. The state afterwards, or `None` if the job was over already.
    pub(crate) fn cancel(&self) -> Option<JobState> {
        let state = {
            let record = self.record();
            if record.view.state.is_terminal() {
                return None;
            }
            self.cancellation.cancel();
            record.view.state
        };
        // A waiting job ends at once; a running one is the engine's, which looks before each step.
        if state == JobState::Queued {
            self.end(Outcome::Cancelled);
        }
        Some(self.state())
    }

    fn announce(&self, record: &Record) {
        let over = usize::from(record.view.state.is_terminal());
        self.told.send_replace(record.events.len() + over);
    }
}

/// The engine's end of a job. If it is dropped before the job is over, the job fails: nobody waits for ever.
#[derive(Debug)]
pub(crate) struct JobSink {
    job: Arc<Job>,
    registry: JobRegistry,
    _present: Present,
}

impl JobSink {
    pub(crate) fn new(job: Arc<Job>, registry: JobRegistry) -> Self {
        let _present = registry.activity().enter();
        Self { job, registry, _present }
    }

    pub(crate) fn id(&self) -> &JobId {
        &self.job.id
    }

    pub(crate) fn is_over(&self) -> bool {
        self.job.state().is_terminal()
    }

    pub(crate) fn start(&self, event: JobEvent) -> bool {
        self.job.start(event)
    }

    pub(crate) fn tell(&self, event: JobEvent) {
        self.job.tell(event);
    }

    pub(crate) fn end(&self, outcome: Outcome) {
        if self.job.end(outcome) {
            self.registry.finished();
        }
    }

    pub(crate) fn fail(&self, code: ErrorCode, message: impl Into<String>) {
        self.end(Outcome::Failed(ErrorDetail::new(code, message)));
    }
}

impl Drop for JobSink {
    fn drop(&mut self) {
        if !self.is_over() {
            self.fail(ErrorCode::InferenceFailed, "the engine dropped the job");
        }
    }
}

/// What a subscriber gets.
#[derive(Debug, Clone, PartialEq)]
pub enum JobUpdate {
    /// The next event.
    Event {
        /// Counts from 1; subscribing `after` it resumes here.
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
    next: usize,
    ended: bool,
    /// Counts as long as this lives.
    _listening: Listening,
}

impl JobUpdates {
    pub(crate) fn new(listening: Listening, after: u64) -> Self {
        let job = listening.job();
        let told = job.told.subscribe();
        let next = usize::try_from(after).unwrap_or(usize::MAX);
        Self { job, told, next, ended: false, _listening: listening }
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
        if let Some(event) = record.events.get(self.next) {
            self.next += 1;
            return Some(JobUpdate::Event { id: self.next as u64, event: event.clone() });
        }
        let end = match (&record.view.state, &record.view.error) {
            (JobState::Queued | JobState::Running, _) => return None,
            (JobState::Completed, _) => Terminator::Done,
            (JobState::Cancelled, _) => Terminator::Cancelled,
            (JobState::Failed, Some(detail)) => Terminator::Error(detail.message.clone()),
            (JobState::Failed, None) => Terminator::Error(String::new()),
        };
        self.ended = true;
        Some(JobUpdate::End(end))
    }
}

fn event_bytes(event: &JobEvent) -> usize {
    let images = match event {
        JobEvent::Preview { image, .. } => image.len(),
        JobEvent::Complete { images, .. } => images.iter().map(|image| image.image.len()).sum(),
        _ => 0,
    };
    size_of::<JobEvent>() + images
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

pub(crate) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
