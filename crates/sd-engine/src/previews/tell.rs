//! The thread that scales and writes previews, and tells listeners.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use operations_contract::{ImageData, ImageFormat, JobEvent, JobId, NarrationLevel, Output};

use super::Preview;
use crate::encode::{encode_image, shrink};
use crate::job::JobSink;

/// So many previews of one job wait at most. Of more, the oldest is left out: the thread is behind, and newer ones show more.
const WAITING: usize = 4;

/// The thread. It ends when this is dropped, without the previews that still wait.
#[derive(Debug)]
pub(super) struct TellThread {
    tell: Tell,
    thread: Option<JoinHandle<()>>,
}

/// The way to the thread. Cloning shares it.
#[derive(Debug, Clone)]
pub(super) struct Tell(Arc<Shared>);

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

impl TellThread {
    pub(super) fn start() -> std::io::Result<(Self, Tell)> {
        let tell = Tell(Arc::default());
        let own = tell.clone();
        let thread = thread::Builder::new().name("sd-previews".into()).spawn(move || own.run())?;
        Ok((Self { tell: tell.clone(), thread: Some(thread) }, tell))
    }
}

impl Drop for TellThread {
    fn drop(&mut self) {
        self.tell.state().stopping = true;
        self.tell.0.changed.notify_all();
        let panicked = self.thread.take().is_some_and(|thread| thread.join().is_err());
        if panicked {
            tracing::error!("the thread of previews panicked");
        }
    }
}

impl Tell {
    /// Nothing panics while it holds the state, and if something did, the state would still be whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a picture over.
    pub(super) fn show(&self, preview: Preview) {
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
    pub(super) fn settle(&self, job: &JobId) {
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
        match bytes {
            Ok(bytes) => {
                let (image, format) = (ImageData::new(bytes), output.format);
                sink.tell(JobEvent::Preview { step, image, format });
            }
            Err(error) => warn(&sink, step, &error),
        }
    }
}

/// Tells that there is no preview of a step, and why.
pub(super) fn warn(sink: &JobSink, step: u32, error: &str) {
    let message = format!("no preview of step {step}: {error}");
    sink.tell(JobEvent::Narration { level: NarrationLevel::Warn, message });
}
