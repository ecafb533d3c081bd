//! The way from the router to the engine.

use std::sync::Arc;
use std::time::Instant;

use operations_contract::{Output, Priority};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::job::JobSink;
use crate::running::Described;
use crate::task::GenerationTask;

/// The sending end. It is cheap to clone, has no lock, and does not own the receiving end.
#[derive(Debug, Clone)]
pub struct RequestQueue {
    sender: mpsc::UnboundedSender<Message>,
    /// One permit for each job that may wait: they, not the channel, bound the queue, because the engine sorts the
    /// waiting jobs by priority and so takes them out of the channel before their turn.
    places: Arc<Semaphore>,
    capacity: usize,
}

/// The receiving end: for the engine.
#[derive(Debug)]
pub struct RequestReceiver {
    pub(crate) messages: mpsc::UnboundedReceiver<Message>,
}

#[derive(Debug)]
pub(crate) enum Message {
    Request(Box<JobRequest>),
    /// Finish what runs, refuse what waits.
    Stop,
}

/// Everything that the execution of a job needs.
#[derive(Debug)]
pub(crate) struct JobRequest {
    pub(crate) task: GenerationTask,
    pub(crate) output: Output,
    pub(crate) described: Arc<Described>,
    /// Who asked.
    pub(crate) caller: Option<Arc<str>>,
    pub(crate) priority: Priority,
    pub(crate) accepted: Instant,
    pub(crate) deadline: Option<Instant>,
    pub(crate) cancellation: CancellationToken,
    pub(crate) sink: JobSink,
    /// Given back when the request leaves the queue, by whatever way.
    pub(crate) place: Place,
}

/// A place in the queue.
#[derive(Debug)]
pub(crate) struct Place(#[allow(dead_code)] OwnedSemaphorePermit);

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
        (Self { sender, places: Arc::new(Semaphore::new(capacity)), capacity }, RequestReceiver { messages })
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
        Arc::clone(&self.places).try_acquire_owned().ok().map(Place)
    }

    pub(crate) fn send(&self, request: JobRequest) -> Result<(), Closed> {
        self.sender.send(Message::Request(Box::new(request))).map_err(|_| Closed)
    }

    /// Asks the engine to stop. It is no error if it has already.
    pub(crate) fn stop(&self) {
        let _already_gone = self.sender.send(Message::Stop);
    }
}
