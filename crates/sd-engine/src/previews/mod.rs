//! Pictures of jobs on their way, made beside the engine's thread: the next step does not wait for them.
//!
//! One thread scales, writes and tells previews. Those that a network has to decode first come to it from another, which
//! takes next to nothing away from the steps.

mod decode;
mod tell;

use std::sync::Arc;

use operations_contract::JobId;

use crate::generator::PreviewPicture;
use crate::job::JobSink;
use decode::{Decode, DecodeThread};
use tell::{Tell, TellThread};

/// The threads. They end when this is dropped, without the previews that still wait.
#[derive(Debug)]
pub(crate) struct PreviewThreads {
    previews: Previews,
    _decode: DecodeThread,
    _tell: TellThread,
}

/// The way to the threads. Cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct Previews {
    decode: Decode,
    tell: Tell,
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

impl PreviewThreads {
    pub(crate) fn start() -> std::io::Result<Self> {
        let (tell_thread, tell) = TellThread::start()?;
        let (decode_thread, decode) = DecodeThread::start(tell.clone())?;
        Ok(Self { previews: Previews { decode, tell }, _decode: decode_thread, _tell: tell_thread })
    }

    pub(crate) fn handle(&self) -> Previews {
        self.previews.clone()
    }
}

impl Previews {
    /// Hands a picture over.
    pub(crate) fn show(&self, preview: Preview) {
        match preview.picture.must_be_decoded() {
            true => self.decode.show(preview),
            false => self.tell.show(preview),
        }
    }

    /// Gives up what is not decoded yet: the job ends.
    pub(crate) fn give_up(&self, job: &JobId) {
        self.decode.give_up(job);
    }

    /// Waits until all previews of the job are told that are decoded already: after its end there are none.
    pub(crate) fn settle(&self, job: &JobId) {
        self.decode.give_up(job);
        self.tell.settle(job);
    }
}
