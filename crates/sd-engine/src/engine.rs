//! The engine and its thread: a loop that turns requests into images.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::board::{ModelBoard, ModelStatus};
use crate::deadlines::DeadlineThread;
use crate::engine_loop::EngineLoop;
use crate::generator::Generator;
use crate::loader::{ModelLoader, ModelRules, Only};
use crate::previews::PreviewThreads;
use crate::queue::RequestReceiver;
use crate::shelf::Shelf;
use crate::waiting::Policy;

/// The engine: models and the receiving end of the queue.
///
/// Its thread takes in what has arrived, starts what has a turn, advances what runs by one step, and begins again.
/// Between two steps and two decoded pictures every cancellation and deadline is seen, between two steps every newcomer.
/// The deadlines of jobs that wait are kept by a thread of their own. Models are loaded and unloaded between jobs.
#[derive(Debug)]
pub struct GenerationEngine<L> {
    loader: L,
    receiver: RequestReceiver,
    models: ModelBoard,
    policy: Policy,
    rules: ModelRules,
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

impl<G: Generator> GenerationEngine<Only<G>> {
    /// Takes the one model, the receiving end of the queue, and the board on which to post whether it can serve.
    pub fn new(generator: G, receiver: RequestReceiver, models: ModelBoard) -> Self {
        Self::with_models(Only::new(generator), receiver, models)
    }
}

impl<L: ModelLoader> GenerationEngine<L> {
    /// Takes what loads its models, the receiving end of the queue, and the board on which to post what they are up to.
    pub fn with_models(loader: L, receiver: RequestReceiver, models: ModelBoard) -> Self {
        let (policy, rules) = (Policy::default(), ModelRules::default());
        Self { loader, receiver, models, policy, rules }
    }

    /// With other rules about whose turn it is.
    #[must_use]
    pub fn with_policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// With other rules about loaded models.
    #[must_use]
    pub fn with_rules(self, rules: ModelRules) -> Self {
        Self { rules, ..self }
    }

    /// Starts the thread. It ends when the router is shut down, when the last sender of the queue is gone, or when the
    /// default model cannot be loaded.
    pub fn start(self) -> std::io::Result<EngineHandle> {
        let previews = PreviewThreads::start()?;
        let deadlines = DeadlineThread::start(self.receiver.deadlines.clone())?;
        let run = move || {
            self.run(previews);
            drop(deadlines);
        };
        let thread = thread::Builder::new().name("sd-engine".into()).spawn(run)?;
        Ok(EngineHandle { thread })
    }

    fn run(self, previews: PreviewThreads) {
        let Self { loader, receiver, models, policy, rules } = self;
        // However the thread ends, nobody shall believe that it still serves.
        let _posted = PostStopped(&models);
        let mut engine =
            EngineLoop::new(Shelf::new(loader, rules, models.clone()), receiver, policy, previews);
        match engine.prepare() {
            Ok(model) => {
                models.post(ModelStatus::Ready(Arc::new(model)));
                engine.run();
            }
            Err(error) => {
                engine.refuse_all();
                models.failed(error.to_string());
            }
        }
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
        match (thread::panicking(), self.0.status()) {
            (true, _) => self.0.failed("the engine broke; the worker must be restarted"),
            // It says why already.
            (false, ModelStatus::Failed(_)) => {}
            (false, _) => self.0.post(ModelStatus::Stopped),
        }
    }
}

/// Runs a generator's or a loader's code. What it leaves half-done after a panic belongs to the generation or model,
/// which is dropped.
pub(crate) fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| panic_message(&*panic))
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
