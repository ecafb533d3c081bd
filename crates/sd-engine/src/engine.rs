//! The loop that turns requests into images, on one thread of its own.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use operations_contract::JobEvent;

use crate::board::{ModelBoard, ModelStatus};
use crate::generator::{ActiveGeneration, Generator, GeneratorError};
use crate::job::millis;
use crate::queue::{JobRequest, Message, RequestReceiver};
use crate::running::{Running, Ticket};
use crate::waiting::{Waiting, refuse};

/// The engine: a generator and the receiving end of the queue.
///
/// Its thread takes in what has arrived, starts what has a turn, advances what runs by one step, and begins again.
/// Between two steps every cancellation, deadline and newcomer is seen.
#[derive(Debug)]
pub struct GenerationEngine<G> {
    generator: G,
    receiver: RequestReceiver,
    models: ModelBoard,
}

/// A started engine.
#[derive(Debug)]
pub struct EngineHandle {
    thread: JoinHandle<()>,
}

/// The engine's thread did not end by itself.
#[derive(Debug, thiserror::Error)]
#[error("the engine's thread panicked: {0}")]
pub struct EngineStopped(String);

impl<G: Generator> GenerationEngine<G> {
    /// Takes a loaded model, the receiving end of the queue, and the board on which to post whether it can serve.
    pub fn new(generator: G, receiver: RequestReceiver, models: ModelBoard) -> Self {
        Self { generator, receiver, models }
    }

    /// Starts the thread. It ends when the router is shut down, or when the last sender of the queue is gone.
    pub fn start(self) -> std::io::Result<EngineHandle> {
        let thread = thread::Builder::new().name("sd-engine".into()).spawn(move || self.run())?;
        Ok(EngineHandle { thread })
    }

    fn run(self) {
        let Self { generator, receiver, models } = self;
        // However the thread ends, nobody shall believe that it still serves.
        let _posted = PostStopped(&models);
        models.post(ModelStatus::Ready(Arc::new(generator.capabilities())));
        let max_active = generator.max_active().max(1);
        let (waiting, running) = (Waiting::default(), Vec::new());
        EngineLoop { generator, receiver, max_active, waiting, running, stopping: false }.run();
    }
}

impl EngineHandle {
    /// Waits until the engine has stopped. Blocks: from async code, wait on [`ModelBoard::stopped`] first.
    pub fn join(self) -> Result<(), EngineStopped> {
        self.thread.join().map_err(|panic| EngineStopped(panic_message(&*panic)))
    }

    /// Whether it has stopped.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

struct PostStopped<'a>(&'a ModelBoard);

impl Drop for PostStopped<'_> {
    fn drop(&mut self) {
        self.0.post(match thread::panicking() {
            true => ModelStatus::Failed("the engine broke; the worker must be restarted".into()),
            false => ModelStatus::Stopped,
        });
    }
}

struct EngineLoop<G: Generator> {
    generator: G,
    receiver: RequestReceiver,
    max_active: usize,
    waiting: Waiting,
    running: Vec<Running<G::Active>>,
    stopping: bool,
}

impl<G: Generator> EngineLoop<G> {
    fn run(mut self) {
        while self.take_in() {
            self.start_waiting();
            for interrupted in self.running.extract_if(.., |running| running.ticket.interrupted()) {
                discard(interrupted.generation);
            }
            self.advance();
        }
        // What was sent while the last job ended.
        self.receiver.messages.close();
        while let Ok(message) = self.receiver.messages.try_recv() {
            if let Message::Request(request) = message {
                refuse(&request);
            }
        }
    }

    /// Takes all that has arrived; waits if there is nothing else to do. False: there never will be.
    fn take_in(&mut self) -> bool {
        if self.running.is_empty() && self.waiting.is_empty() && !self.stopping {
            match self.receiver.messages.blocking_recv() {
                Some(message) => self.receive(message),
                None => self.stopping = true,
            }
        }
        while let Ok(message) = self.receiver.messages.try_recv() {
            self.receive(message);
        }
        self.waiting.prune(Instant::now());
        if self.stopping {
            self.waiting.refuse();
        }
        !(self.stopping && self.running.is_empty())
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Request(request) => self.waiting.push(*request),
            Message::Stop => self.stopping = true,
        }
    }

    fn start_waiting(&mut self) {
        while self.running.len() < self.max_active {
            let Some(request) = self.waiting.pop() else { return };
            if let Some(running) = self.begin(request) {
                self.running.push(running);
            }
        }
    }

    fn begin(&mut self, request: JobRequest) -> Option<Running<G::Active>> {
        let JobRequest { task, output, described, accepted, deadline, cancellation, sink, place, .. } =
            request;
        drop(place);
        let started = JobEvent::Started {
            model: task.model.clone(),
            seed: task.seed,
            width: task.width,
            height: task.height,
            steps: task.steps,
        };
        if !sink.start(started) {
            return None;
        }
        let ticket = Ticket {
            cancellation,
            deadline,
            output,
            preview: task.preview,
            described,
            seed: task.seed,
            queued_ms: millis(accepted.elapsed()),
            started: Instant::now(),
            sink,
        };
        match guarded(|| self.generator.begin(task)) {
            Ok(Ok(generation)) => Some(Running { generation, ticket }),
            Ok(Err(error)) => {
                ticket.fail(&error);
                None
            }
            Err(panic) => {
                ticket.panicked(&panic);
                None
            }
        }
    }

    /// One step of all that runs; those without a further one are finished.
    fn advance(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let mut generations: Vec<&mut G::Active> =
            self.running.iter_mut().map(|running| &mut running.generation).collect();
        let mut results = match guarded(|| self.generator.advance(&mut generations)) {
            Ok(results) => results.into_iter(),
            Err(panic) => {
                for running in self.running.drain(..) {
                    running.ticket.panicked(&panic);
                    discard(running.generation);
                }
                return;
            }
        };
        for running in std::mem::take(&mut self.running) {
            match results.next() {
                Some(Ok(Some(report))) => {
                    running.ticket.stepped(report);
                    self.running.push(running);
                }
                Some(Ok(None)) => finish(running),
                Some(Err(error)) => {
                    running.ticket.fail(&error);
                    discard(running.generation);
                }
                None => {
                    running.ticket.fail(&GeneratorError::failed("the generator gave no result of a step"));
                    discard(running.generation);
                }
            }
        }
    }
}

fn finish<A: ActiveGeneration>(running: Running<A>) {
    let Running { generation, ticket } = running;
    match guarded(|| generation.finish()) {
        Ok(Ok(images)) => ticket.complete(images),
        Ok(Err(error)) => ticket.fail(&error),
        Err(panic) => ticket.panicked(&panic),
    }
}

/// Drops a generation that may be in any state.
fn discard<A>(generation: A) {
    if let Err(panic) = guarded(|| drop(generation)) {
        tracing::error!(panic, "a generation panicked when it was dropped");
    }
}

/// Runs a generator's code. What it leaves half-done after a panic belongs to the generation, which is dropped.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| panic_message(&*panic))
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
