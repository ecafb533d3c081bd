//! The way from the router to the engine.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use operations_contract::{Output, Priority};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::deadlines::Deadlines;
use crate::job::JobSink;
use crate::load::Load;
use crate::pending::PendingTask;
use crate::work::Work;

/// The sending end. It is cheap to clone, has no lock, and does not own the receiving end.
#[derive(Debug, Clone)]
pub struct RequestQueue {
    sender: mpsc::UnboundedSender<Message>,
    /// One permit for each job that may wait: they, not the channel, bound the queue, because the engine sorts the
    /// waiting jobs by priority and so takes them out of the channel before their turn.
    places: Arc<Semaphore>,
    capacity: usize,
    load: Arc<Load>,
    deadlines: Deadlines,
}

/// The receiving end: for the engine.
#[derive(Debug)]
pub struct RequestReceiver {
    pub(crate) messages: mpsc::UnboundedReceiver<Message>,
    pub(crate) load: Arc<Load>,
    pub(crate) deadlines: Deadlines,
}

#[derive(Debug)]
pub(crate) enum Message {
    Request(Box<JobRequest>),
    Swap(Swap),
    /// Finish what runs, refuse what waits.
    Stop,
}

/// A change of the loaded models; both name the model's id.
#[derive(Debug)]
pub(crate) enum Swap {
    Load(String),
    Unload(String),
}

/// How waiting for a message ended.
#[derive(Debug)]
pub(crate) enum Waited {
    Message(Message),
    TooLong,
    /// There will be no more.
    Closed,
}

/// Everything that the execution of a job needs.
#[derive(Debug)]
pub(crate) struct JobRequest {
    pub(crate) task: PendingTask,
    /// What the task asks of the engine.
    pub(crate) work: Work,
    pub(crate) output: Output,
    /// Who asked.
    pub(crate) caller: Option<Arc<str>>,
    pub(crate) priority: Priority,
    pub(crate) accepted: Instant,
    pub(crate) deadline: Option<Instant>,
    pub(crate) cancellation: CancellationToken,
    /// While it waits.
    pub(crate) queued: Span,
    pub(crate) sink: JobSink,
    /// Given back when the request leaves the queue, by whatever way.
    pub(crate) place: Place,
}

/// A place in the queue.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: Option<OwnedSemaphorePermit>,
    load: Arc<Load>,
    /// What the job in it has to do.
    work: Option<Work>,
}

impl Place {
    fn fill(&mut self, work: &Work) {
        self.load.enter(work);
        self.work = Some(work.clone());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(work) = &self.work {
            self.load.leave(work);
        }
    }
}

/// The receiver is gone.
#[derive(Debug)]
pub(crate) struct Closed;

impl RequestQueue {
    /// A queue in which `capacity` jobs (at least one) can wait.
    // The receiving end cannot be part of the queue: see the type.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(capacity: usize) -> (Self, RequestReceiver) {
        let capacity = capacity.clamp(1, Semaphore::MAX_PERMITS);
        let (sender, messages) = mpsc::unbounded_channel();
        let (load, deadlines) = (Arc::<Load>::default(), Deadlines::default());
        let receiver = RequestReceiver { messages, load: Arc::clone(&load), deadlines: deadlines.clone() };
        let places = Arc::new(Semaphore::new(capacity));
        (Self { sender, places, capacity, load, deadlines }, receiver)
    }

    /// How many jobs can wait.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many jobs wait.
    pub fn waiting(&self) -> usize {
        self.capacity.saturating_sub(self.places.available_permits())
    }

    /// Takes a place, if one is free.
    pub(crate) fn reserve(&self) -> Option<Place> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Place { _permit: Some(permit), load: Arc::clone(&self.load), work: None })
    }

    /// Takes a place, or goes without one: for jobs that were admitted before.
    pub(crate) fn place_anyway(&self) -> Place {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok();
        Place { _permit: permit, load: Arc::clone(&self.load), work: None }
    }

    /// When there may be a place for a job that found none.
    pub(crate) fn retry_after(&self) -> Duration {
        self.load.refuse()
    }

    /// The deadlines of those that wait.
    pub(crate) fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    pub(crate) fn send(&self, mut request: JobRequest) -> Result<(), Closed> {
        request.place.fill(&request.work);
        self.sender.send(Message::Request(Box::new(request))).map_err(|_| Closed)
    }

    /// Asks for another model to be loaded, or for one to be unloaded.
    pub(crate) fn swap(&self, swap: Swap) -> Result<(), Closed> {
        self.sender.send(Message::Swap(swap)).map_err(|_| Closed)
    }

    /// Asks the engine to stop. It is no error if it has already.
    pub(crate) fn stop(&self) {
        let _already_gone = self.sender.send(Message::Stop);
    }
}

impl RequestReceiver {
    /// Blocks until a message comes, or until that time.
    pub(crate) fn wait(&mut self, until: Option<Instant>) -> Waited {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            match self.messages.poll_recv(&mut Context::from_waker(&waker)) {
                Poll::Ready(Some(message)) => return Waited::Message(message),
                Poll::Ready(None) => return Waited::Closed,
                Poll::Pending => {}
            }
            // A message that comes now unparks the thread beforehand; waking for nothing only polls again.
            match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => thread::park(),
                Some(Duration::ZERO) => return Waited::TooLong,
                Some(left) => thread::park_timeout(left),
            }
        }
    }
}

/// Wakes the engine's thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
