//! What the engine's thread does, again and again.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use operations_contract::{ErrorCode, JobEvent, ModelCapabilities, NarrationLevel};
use tracing::Span;

use crate::engine::guarded;
use crate::generator::{ActiveGeneration, Generator, GeneratorError, StepReport, StepResult};
use crate::job::{Outcome, millis};
use crate::load::Preparation;
use crate::loader::ModelLoader;
use crate::metrics;
use crate::previews::PreviewThreads;
use crate::queue::{JobRequest, Message, RequestReceiver, Swap, Waited};
use crate::running::{Running, Ticket};
use crate::shelf::Shelf;
use crate::spans;
use crate::task::Task;
use crate::waiting::{Policy, Turn, Waiting};
use crate::warm_up;
use crate::work::{Kind, Shape, Work};

/// A generation of the loader's models.
type Active<L> = <<L as ModelLoader>::Generator as Generator>::Active;

pub(crate) struct EngineLoop<L: ModelLoader> {
    shelf: Shelf<L>,
    receiver: RequestReceiver,
    waiting: Waiting<JobRequest>,
    /// What runs, all of it on one model.
    running: Vec<Running<Active<L>>>,
    /// Models that somebody wants loaded or unloaded.
    swaps: VecDeque<Swap>,
    previews: PreviewThreads,
    stopping: bool,
}

impl<L: ModelLoader> EngineLoop<L> {
    pub(crate) fn new(
        shelf: Shelf<L>,
        receiver: RequestReceiver,
        policy: Policy,
        previews: PreviewThreads,
    ) -> Self {
        let (waiting, running, swaps) = (Waiting::new(policy), Vec::new(), VecDeque::new());
        Self { shelf, receiver, waiting, running, swaps, previews, stopping: false }
    }

    /// Loads the default model and lets it take a step; gives what it can do.
    pub(crate) fn prepare(&mut self) -> Result<ModelCapabilities, GeneratorError> {
        self.load(0)?;
        let model = self.shelf.capabilities(0).cloned();
        model.ok_or_else(|| GeneratorError::failed("there is no model"))
    }

    pub(crate) fn run(mut self) {
        while self.take_in() {
            self.swap();
            self.start_waiting();
            self.tell_load();
            for interrupted in self.running.extract_if(.., |running| running.ticket.interrupted()) {
                self.waiting.leave(&interrupted.ticket.caller);
                discard(interrupted.generation);
            }
            self.advance();
            self.tell_load();
        }
        self.refuse_all();
    }

    /// Refuses what waits and what was sent while the last job ended.
    pub(crate) fn refuse_all(&mut self) {
        self.waiting.drain().for_each(|request| refuse(&request));
        self.receiver.messages.close();
        while let Ok(message) = self.receiver.messages.try_recv() {
            if let Message::Request(request) = message {
                refuse(&request);
            }
        }
    }

    /// Takes all that has arrived; waits if there is nothing else to do. False: there never will be.
    fn take_in(&mut self) -> bool {
        if self.running.is_empty() && self.waiting.is_empty() && self.swaps.is_empty() && !self.stopping {
            match self.receiver.wait(self.shelf.next_idle()) {
                Waited::Message(message) => self.receive(message),
                Waited::TooLong => {}
                Waited::Closed => self.stopping = true,
            }
        }
        while let Ok(message) = self.receiver.messages.try_recv() {
            self.receive(message);
        }
        let now = Instant::now();
        self.waiting.retain(|request| still_waits(request, now));
        if self.stopping {
            self.waiting.drain().for_each(|request| refuse(&request));
        }
        !(self.stopping && self.running.is_empty())
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Request(request) => {
                let JobRequest { caller, priority, accepted, .. } = &*request;
                let turn = Turn { caller: caller.clone(), priority: *priority, accepted: *accepted };
                self.waiting.push(turn, *request);
            }
            Message::Swap(swap) => self.swaps.push_back(swap),
            Message::Stop => self.stopping = true,
        }
    }

    /// Unloads what is unused; loads and unloads what was asked for as soon as nothing runs.
    fn swap(&mut self) {
        let wanted = |id: &str| {
            self.running.first().is_some_and(|running| *running.ticket.work.model == *id)
                || self.waiting.any(|request| *request.work.model == *id)
        };
        self.shelf.unload_idle(Instant::now(), wanted);
        if !self.running.is_empty() {
            return;
        }
        while let Some(swap) = self.swaps.pop_front() {
            match swap {
                // Whoever asked finds the error on the board.
                Swap::Load(id) => drop(self.shelf.find(&id).map(|index| self.load(index))),
                Swap::Unload(id) => drop(self.shelf.find(&id).map(|index| self.shelf.unload(index))),
            }
        }
    }

    /// Loads a model ahead of its first job.
    fn load(&mut self, index: usize) -> Result<(), GeneratorError> {
        if self.shelf.capabilities(index).is_some_and(|model| self.shelf.is_loaded(&model.id)) {
            return Ok(());
        }
        let warms_up = self.shelf.warms_up();
        self.read(index, Preparation::Ahead { warms_up })?;
        match self.shelf.capabilities(index).cloned().filter(|_| warms_up) {
            Some(model) => self.warm_up(index, &model),
            None => Ok(()),
        }
    }

    /// Loads a model, with the clients in mind who are refused meanwhile.
    fn read(&mut self, index: usize, preparation: Preparation) -> Result<(), GeneratorError> {
        let id: Arc<str> = self.shelf.capabilities(index).map(|model| &*model.id).unwrap_or_default().into();
        self.receiver.load.prepares(&id, preparation);
        let begun = Instant::now();
        let loaded = self.shelf.load(index);
        if loaded.is_ok() {
            self.receiver.load.loaded(&id, begun.elapsed());
        }
        self.receiver.load.holds(self.shelf.loaded_ids());
        loaded
    }

    fn warm_up(&mut self, index: usize, model: &ModelCapabilities) -> Result<(), GeneratorError> {
        let Some(generator) = self.shelf.loaded(index) else { return Ok(()) };
        let _within = spans::warm_up(&model.id).entered();
        let (begun, id) = (Instant::now(), Arc::<str>::from(&*model.id));
        self.receiver.load.prepares(&id, Preparation::WarmUp);
        let step = guarded(|| warm_up::run(generator, model)).unwrap_or_else(|panic| {
            Err(GeneratorError::failed(format!("the warm-up step panicked: {panic}")))
        });
        self.receiver.load.warmed_up(&id, begun.elapsed());
        let (work, time) = step?;
        tracing::debug!(model = model.id, ms = millis(time), "warm-up step");
        self.receiver.load.stepped_cold(&work, work.units, time);
        Ok(())
    }

    fn start_waiting(&mut self) {
        loop {
            let shapes: Vec<_> = self.running.iter().map(|running| running.ticket.work.shape).collect();
            let next = match self.running.first() {
                // Models are swapped when nothing runs: no newcomer may put that off.
                Some(_) if !self.swaps.is_empty() => return,
                Some(first) => {
                    let model = first.ticket.work.model.clone();
                    let Some(index) = self.shelf.find(&model) else { return };
                    if self.running.len() >= self.shelf.max_active(index) {
                        return;
                    }
                    let Some(generator) = self.shelf.loaded(index) else { return };
                    // Shapes that join each other differ in the number of pictures alone: what one is told holds for all.
                    let answered = Cell::new(None);
                    let has_room = |shape: Shape| match answered.get() {
                        Some((images, room)) if images == shape.images => room,
                        _ => {
                            let room = generator.has_room(&[&shapes[..], &[shape]].concat());
                            answered.set(Some((shape.images, room)));
                            room
                        }
                    };
                    let joins = |request: &JobRequest| {
                        let shape = request.work.shape;
                        request.work.model == model
                            && shapes.iter().all(|other| other.joins(&shape))
                            && has_room(shape)
                    };
                    self.waiting.pop(Instant::now(), true, joins)
                }
                None => {
                    let shelf = &self.shelf;
                    self.waiting.pop(Instant::now(), false, |request| shelf.is_loaded(&request.work.model))
                }
            };
            let Some(request) = next else { return };
            let (caller, begun) = (request.caller.clone(), Instant::now());
            let running = self.begin(request);
            self.waiting.charge(&caller, begun.elapsed());
            match running {
                Some(running) => self.running.push(running),
                None => self.waiting.leave(&caller),
            }
        }
    }

    fn begin(&mut self, mut request: JobRequest) -> Option<Running<Active<L>>> {
        request.queued = Span::none();
        let index = self.provide(&request)?;
        let begun = Instant::now();
        let JobRequest { task, mut work, output, caller, accepted, deadline, .. } = request;
        let (cancellation, sink, place) = (request.cancellation, request.sink, request.place);
        drop(place);
        let (task, described) = match guarded(|| task.load()) {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(detail)) => {
                sink.end(Outcome::Failed(detail));
                return None;
            }
            Err(panic) => {
                let message = format!("the request's pictures cannot be read: {panic}");
                sink.fail(ErrorCode::InferenceFailed, message);
                return None;
            }
        };
        if !sink.start(task.started()) {
            return None;
        }
        if let Task::Upscale(task) = &task {
            // That of a job from before a restart was not known.
            work = Work::enlarging(&work.model, task);
        }
        let left = work.units;
        let span = sink.span().clone();
        let ticket = Ticket {
            caller,
            work,
            cancellation,
            deadline,
            output,
            preview: task.preview(),
            described,
            seed: task.seed(),
            queued_ms: millis(accepted.elapsed()),
            started: Instant::now(),
            sink: Arc::new(sink),
            previews: self.previews.handle(),
        };
        let generator = self.shelf.loaded(index)?;
        let _within = span.enter();
        tracing::info!(queued_ms = ticket.queued_ms, "started");
        match guarded(|| task.begin(generator)) {
            Ok(Ok(generation)) => {
                let denoise = spans::denoise(&span, &ticket.work);
                Some(Running { generation, denoise, ticket, left, rest: begun.elapsed() })
            }
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

    /// The place of the request's model, which is loaded then. If it cannot be, all jobs that wait for it end.
    fn provide(&mut self, request: &JobRequest) -> Option<usize> {
        let id = &request.work.model;
        let Some(index) = self.shelf.find(id) else {
            let message = format!("there is no model `{id}` any more");
            request.sink.fail(ErrorCode::ModelNotFound, message);
            return None;
        };
        if self.shelf.is_loaded(id) {
            return Some(index);
        }
        let message = format!("model `{id}` is being loaded");
        request.sink.tell(JobEvent::Narration { level: NarrationLevel::Info, message });
        let error = match request.sink.span().in_scope(|| self.read(index, Preparation::ForJob)) {
            Ok(()) => return Some(index),
            Err(error) => error,
        };
        let message = format!("model `{id}` cannot be loaded: {error}");
        request.sink.fail(error.code(), message.as_str());
        self.waiting.retain(|other| {
            let same = other.work.model == *id;
            if same {
                other.sink.fail(error.code(), message.as_str());
            }
            !same
        });
        None
    }

    /// One step of all that runs; those without a further one are finished.
    fn advance(&mut self) {
        let Some(first) = self.running.first() else { return };
        let index = self.shelf.find(&first.ticket.work.model);
        let Some(generator) = index.and_then(|index| self.shelf.loaded(index)) else {
            // Dropped jobs fail; a model with running jobs is not unloaded.
            return self.running.clear();
        };
        let begun = Instant::now();
        let mut generations: Vec<&mut Active<L>> =
            self.running.iter_mut().map(|running| &mut running.generation).collect();
        let results = match guarded(|| generator.advance(&mut generations)) {
            Ok(results) => results,
            Err(panic) => {
                for running in self.running.drain(..) {
                    self.waiting.leave(&running.ticket.caller);
                    running.ticket.panicked(&panic);
                    discard(running.generation);
                }
                return;
            }
        };
        let advanced = std::mem::take(&mut self.running);
        self.count(&advanced, &results, begun.elapsed());
        let jobs = advanced.len();
        let mut results = results.into_iter();
        for mut running in advanced {
            match results.next() {
                Some(Ok(Some(report))) => {
                    running.left = left_after(&running.ticket.work, &report);
                    spans::stepped(&running.denoise, &report, jobs);
                    running.ticket.stepped(report);
                    self.running.push(running);
                }
                Some(Ok(None)) => self.finish(running),
                Some(Err(error)) => self.fail(running, &error),
                None => {
                    let error = GeneratorError::failed("the generator gave no result of a step");
                    self.fail(running, &error);
                }
            }
        }
    }

    /// Counts the time of a step of all: to the callers in equal parts, and to the model's speed.
    fn count(&mut self, advanced: &[Running<Active<L>>], results: &[StepResult], time: Duration) {
        let mut units = 0.0;
        for (running, result) in advanced.iter().zip(results) {
            if let Ok(Some(report)) = result {
                units += running.left - left_after(&running.ticket.work, report);
            }
        }
        if let Some(first) = advanced.first() {
            let work = &first.ticket.work;
            self.receiver.load.stepped(work, units, time);
            let steps = results.iter().filter(|result| matches!(result, Ok(Some(_)))).count();
            if work.kind == Kind::Drawing {
                metrics::stepped(&work.model, steps, time);
            }
        }
        let share = time / u32::try_from(advanced.len().max(1)).unwrap_or(u32::MAX);
        for running in advanced {
            self.waiting.charge(&running.ticket.caller, share);
        }
    }

    fn finish(&mut self, running: Running<Active<L>>) {
        let begun = Instant::now();
        let Running { mut generation, denoise, ticket, rest, .. } = running;
        drop(denoise);
        let span = ticket.sink.span().clone();
        let _within = span.enter();
        let finished = guarded(|| {
            loop {
                if ticket.interrupted() {
                    return Ok(None);
                }
                if !generation.decode()? {
                    return generation.finish().map(Some);
                }
            }
        });
        // What was broken off tells nothing of how long it takes.
        let whole = !matches!(finished, Ok(Ok(None)));
        match finished {
            Ok(Ok(Some(images))) => ticket.complete(images),
            // Whoever follows it has been told.
            Ok(Ok(None)) => {}
            Ok(Err(error)) => ticket.fail(&error),
            Err(panic) => ticket.panicked(&panic),
        }
        self.waiting.charge(&ticket.caller, begun.elapsed());
        self.waiting.leave(&ticket.caller);
        if whole {
            self.receiver.load.finished(&ticket.work, rest + begun.elapsed());
        }
        // From now on it is unused.
        let _ = self.shelf.find(&ticket.work.model).and_then(|index| self.shelf.loaded(index));
    }

    fn fail(&mut self, running: Running<Active<L>>, error: &GeneratorError) {
        self.waiting.leave(&running.ticket.caller);
        running.ticket.fail(error);
        discard(running.generation);
    }

    /// Tells the queue what is left to do.
    fn tell_load(&self) {
        let left = |running: &Running<Active<L>>| Work { units: running.left, ..running.ticket.work.clone() };
        self.receiver.load.holds(self.shelf.loaded_ids());
        self.receiver.load.running(self.running.iter().map(left).collect());
    }
}

/// What a job still has to do after a step.
fn left_after(work: &Work, report: &StepReport) -> f64 {
    let left = report.total_steps.saturating_sub(report.step);
    work.units * f64::from(left) / f64::from(report.total_steps.max(1))
}

/// False for a job that is over. Its deadline may have passed a moment ago: what is late does not begin.
fn still_waits(request: &JobRequest, now: Instant) -> bool {
    if request.deadline.is_some_and(|deadline| deadline <= now) {
        request.sink.expire();
    }
    !request.sink.is_over()
}

/// Ends a job that waits: the worker is going down.
fn refuse(request: &JobRequest) {
    tracing::info!(job = %request.sink.id(), caller = request.caller.as_deref(), "a waiting job is refused");
    request.sink.refuse();
}

/// Drops a generation that may be in any state.
fn discard<A>(generation: A) {
    if let Err(panic) = guarded(|| drop(generation)) {
        tracing::error!(panic, "a generation panicked when it was dropped");
    }
}
