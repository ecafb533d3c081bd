//! The thread on which networks decode previews, in the background of the steps.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use operations_contract::JobId;
use sd_inference::Background;

use super::Preview;
use super::tell::{Tell, warn};
use crate::generator::{GeneratorError, PreviewPicture};
use crate::picture::Picture;

/// The thread. It ends when this is dropped, without the previews that still wait.
#[derive(Debug)]
pub(super) struct DecodeThread {
    decode: Decode,
    thread: Option<JoinHandle<()>>,
}

/// The way to the thread. Cloning shares it.
#[derive(Debug, Clone)]
pub(super) struct Decode(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Where pictures go.
    tell: Tell,
}

#[derive(Debug, Default)]
struct State {
    /// One of a job at most: the newest.
    waiting: VecDeque<Preview>,
    /// Whose preview is being decoded; `None` too once it is given up.
    at_work: Option<JobId>,
    stopping: bool,
}

impl DecodeThread {
    pub(super) fn start(tell: Tell) -> std::io::Result<(Self, Decode)> {
        let shared = Shared { state: Mutex::default(), changed: Condvar::new(), tell };
        let decode = Decode(Arc::new(shared));
        let own = decode.clone();
        let thread = thread::Builder::new().name("sd-preview-nets".into()).spawn(move || own.run())?;
        Ok((Self { decode: decode.clone(), thread: Some(thread) }, decode))
    }
}

impl Drop for DecodeThread {
    fn drop(&mut self) {
        self.decode.state().stopping = true;
        self.decode.0.changed.notify_all();
        let panicked = self.thread.take().is_some_and(|thread| thread.join().is_err());
        if panicked {
            tracing::error!("the thread that decodes previews panicked");
        }
    }
}

impl Decode {
    /// Nothing panics while it holds the state, and if something did, the state would still be whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a picture over. It takes the place of the job's older one that still waits.
    pub(super) fn show(&self, preview: Preview) {
        let mut state = self.state();
        let waiting = state.waiting.iter_mut().find(|other| other.sink.id() == preview.sink.id());
        match waiting {
            Some(older) => *older = preview,
            None => state.waiting.push_back(preview),
        }
        self.0.changed.notify_all();
    }

    /// Leaves out what the job still has here. What is being decoded ends at its next convolution, untold.
    pub(super) fn give_up(&self, job: &JobId) {
        let mut state = self.state();
        state.waiting.retain(|other| other.sink.id() != job);
        state.at_work.take_if(|at_work| at_work == job);
        self.0.changed.notify_all();
    }

    fn run(&self) {
        // The pool of the steps is rayon's global one: asked before this thread becomes a pool of its own.
        let mut background = Background::enter(rayon::current_num_threads());
        let mut state = self.state();
        while !state.stopping {
            let Some(preview) = state.waiting.pop_front() else {
                state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let Preview { sink, step, max_side, picture } = preview;
            state.at_work = Some(sink.id().clone());
            drop(state);
            background.begin();
            let decoded = decoded(picture, &mut || self.rest(&background, sink.id()));
            state = self.state();
            // Told under the lock: whoever gives up knows that nothing comes after.
            if state.at_work.take().is_some_and(|job| job == *sink.id()) {
                match decoded {
                    Ok(Some(picture)) => {
                        tracing::debug!(job = %sink.id(), step, used = ?background.used(), "decoded a preview");
                        self.0.tell.show(Preview { sink, step, max_side, picture: picture.into() });
                    }
                    Ok(None) => {}
                    Err(error) => warn(&sink, step, &error),
                }
            }
        }
    }

    /// Lets the steps have the processor for as long as is due; false where the picture is no longer wanted.
    fn rest(&self, background: &Background, job: &JobId) -> bool {
        let until = Instant::now() + background.due();
        let mut state = self.state();
        loop {
            if state.stopping || state.at_work.as_ref() != Some(job) {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn decoded(picture: PreviewPicture, go_on: &mut dyn FnMut() -> bool) -> Result<Option<Picture>, String> {
    match catch_unwind(AssertUnwindSafe(|| picture.make_while(go_on))) {
        Ok(made) => made.map_err(|error: GeneratorError| error.to_string()),
        Err(_) => Err("making it panicked".into()),
    }
}
