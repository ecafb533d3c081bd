//! Previews are scaled, written and told on a thread of their own: the next step does not wait for them.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use operations_contract::{ImageData, ImageFormat, JobEvent, JobId, NarrationLevel, Output};

use crate::encode::{encode_image, shrink};
use crate::generator::PreviewPicture;
use crate::job::JobSink;

/// So many previews of one job wait at most. Of more, the oldest is left out: the thread is behind, and newer ones show more.
const WAITING: usize = 4;

/// The thread. It ends when this is dropped, without the previews that still wait.
#[derive(Debug)]
pub(crate) struct PreviewThread {
    previews: Previews,
    thread: Option<JoinHandle<()>>,
}

/// The way to the thread. Cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct Previews(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Preview>,
    /// Whose preview is being made.
    at_work: Option<JobId>,
    stopping: bool,
}

/// A picture on its way to a job's listeners.
#[derive(Debug)]
pub(crate) struct Preview {
    pub(crate) sink: Arc<JobSink>,
    /// After this step.
    pub(crate) step: u32,
    /// Its longer side at most.
    pub(crate) max_side: u32,
    pub(crate) picture: PreviewPicture,
}

impl PreviewThread {
    pub(crate) fn start() -> std::io::Result<Self> {
        let previews = Previews(Arc::default());
        let own = previews.clone();
        let thread = thread::Builder::new().name("sd-previews".into()).spawn(move || own.run())?;
        Ok(Self { previews, thread: Some(thread) })
    }

    pub(crate) fn handle(&self) -> Previews {
        self.previews.clone()
    }
}

impl Drop for PreviewThread {
    fn drop(&mut self) {
        self.previews.state().stopping = true;
        self.previews.0.changed.notify_all();
        let panicked = self.thread.take().is_some_and(|thread| thread.join().is_err());
        if panicked {
            tracing::error!("the thread of previews panicked");
        }
    }
}

impl Previews {
    /// Nothing panics while it holds the state, and if something did, the state would still be whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a picture over.
    pub(crate) fn show(&self, preview: Preview) {
        let mut state = self.state();
        let of_job = |other: &&Preview| other.sink.id() == preview.sink.id();
        if state.waiting.iter().filter(of_job).count() >= WAITING {
            let oldest = state.waiting.iter().position(|other| of_job(&other));
            oldest.and_then(|oldest| state.waiting.remove(oldest));
        }
        state.waiting.push_back(preview);
        self.0.changed.notify_all();
    }

    /// Waits until all previews of the job are told: after its end there are none.
    pub(crate) fn settle(&self, job: &JobId) {
        let mut state = self.state();
        while !state.stopping
            && (state.at_work.as_ref() == Some(job)
                || state.waiting.iter().any(|other| other.sink.id() == job))
        {
            state = self.wait(state);
        }
    }

    fn run(&self) {
        let mut state = self.state();
        while !state.stopping {
            let Some(preview) = state.waiting.pop_front() else {
                state = self.wait(state);
                continue;
            };
            state.at_work = Some(preview.sink.id().clone());
            drop(state);
            preview.tell();
            state = self.state();
            state.at_work = None;
            self.0.changed.notify_all();
        }
    }
}

impl Preview {
    fn tell(self) {
        let Self { sink, step, max_side, picture } = self;
        if sink.is_over() {
            return;
        }
        let output = Output { format: ImageFormat::Jpeg, quality: 80, metadata: false };
        let make = || {
            let picture = shrink(picture.make().map_err(|error| error.to_string())?, max_side);
            encode_image(&picture, &output, &[]).map_err(|error| error.to_string())
        };
        let bytes = catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(|_| Err("making it panicked".into()));
        sink.tell(match bytes {
            Ok(bytes) => JobEvent::Preview { step, image: ImageData::new(bytes), format: output.format },
            Err(error) => JobEvent::Narration {
                level: NarrationLevel::Warn,
                message: format!("no preview of step {step}: {error}"),
            },
        });
    }
}
