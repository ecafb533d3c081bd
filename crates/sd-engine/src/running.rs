//! One job in the engine's hands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use operations_contract::{
    ErrorCode, EventImage, ImageData, JobEvent, NarrationLevel, Operation, Output, Preview, Timings,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::encode::{EncodeError, encode_image, fitting};
use crate::generator::{GeneratedImages, GeneratorError, StepReport};
use crate::job::{JobSink, Outcome, millis};
use crate::metadata;
use crate::picture::Picture;
use crate::previews::{self, Previews};
use crate::spans;
use crate::waiting::Caller;
use crate::work::Work;

/// A job that was begun, with its generation.
pub(crate) struct Running<A> {
    pub(crate) generation: A,
    /// Of its steps.
    pub(crate) denoise: Span,
    pub(crate) ticket: Ticket,
    /// What is still to do of the ticket's work, in its units.
    pub(crate) left: f64,
    /// The time that it took beside its steps.
    pub(crate) rest: Duration,
}

/// What the engine knows of a running job beside the generation.
pub(crate) struct Ticket {
    pub(crate) sink: Arc<JobSink>,
    pub(crate) previews: Previews,
    /// Who asked: the time is counted to them.
    pub(crate) caller: Caller,
    pub(crate) work: Work,
    pub(crate) cancellation: CancellationToken,
    pub(crate) deadline: Option<Instant>,
    pub(crate) output: Output,
    pub(crate) preview: Option<Preview>,
    pub(crate) described: Arc<Described>,
    pub(crate) seed: u64,
    pub(crate) queued_ms: u64,
    pub(crate) started: Instant,
}

/// The request with every value filled in, as files and clients are told it.
#[derive(Debug)]
pub(crate) struct Described {
    pub(crate) operation: Operation,
    pub(crate) parameters: Value,
    /// What the file of the picture that is enlarged tells of its making.
    pub(crate) told: Option<String>,
}

/// However a job ends, the engine lets go of its ticket.
impl Drop for Ticket {
    fn drop(&mut self) {
        self.previews.give_up(self.sink.id());
        let (state, elapsed_ms) = (self.sink.state().as_str(), millis(self.started.elapsed()));
        tracing::info!(parent: self.sink.span(), state, elapsed_ms, "over");
    }
}

impl Ticket {
    /// Whether the job must not go on; if so, it has been told.
    pub(crate) fn interrupted(&self) -> bool {
        if self.cancellation.is_cancelled() {
            self.sink.end(Outcome::Cancelled);
        } else if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            self.sink.fail(ErrorCode::Timeout, "the deadline passed while the job ran");
        }
        self.sink.is_over()
    }

    pub(crate) fn stepped(&self, report: StepReport) {
        let StepReport { step, total_steps, preview, warnings } = report;
        self.warn(warnings);
        let elapsed_ms = millis(self.started.elapsed());
        let left = u64::from(total_steps.saturating_sub(step));
        self.sink.tell(JobEvent::Progress {
            step,
            total_steps,
            percent: 100.0 * f64::from(step) / f64::from(total_steps.max(1)),
            elapsed_ms,
            eta_ms: elapsed_ms * left / u64::from(step.max(1)),
        });
        if let (Some(picture), Some(wanted)) = (preview, self.preview) {
            let sink = Arc::clone(&self.sink);
            self.previews.show(previews::Preview { sink, step, max_side: wanted.max_side, picture });
        }
    }

    fn warn(&self, warnings: Vec<String>) {
        for message in warnings {
            self.sink.tell(JobEvent::Narration { level: NarrationLevel::Warn, message });
        }
    }

    pub(crate) fn fail(&self, error: &GeneratorError) {
        tracing::warn!(job = %self.sink.id(), error = %error, "a job failed");
        self.sink.fail(error.code(), error.to_string());
    }

    pub(crate) fn panicked(&self, message: &str) {
        tracing::error!(job = %self.sink.id(), panic = message, "a job panicked");
        self.sink.fail(ErrorCode::InferenceFailed, format!("the generator panicked: {message}"));
    }

    /// Writes the files and ends the job.
    pub(crate) fn complete(&self, generated: GeneratedImages) {
        let GeneratedImages { images, timings, warnings, circumstances, circumstances_of_each } = generated;
        self.warn(warnings);
        let encoding = Instant::now();
        let _encode = spans::encode().entered();
        let each = circumstances_of_each.into_iter().chain(std::iter::repeat_with(Vec::new));
        let files = (0u64..).zip(&images).zip(each).map(|((k, picture), own)| {
            let circumstances: Vec<_> = circumstances.iter().cloned().chain(own).collect();
            self.file(picture, k, &circumstances)
        });
        let files: Result<Vec<EventImage>, EncodeError> = files.collect();
        self.previews.settle(self.sink.id());
        match files {
            Ok(images) => self.sink.end(Outcome::Completed {
                images,
                timings: Timings {
                    queued_ms: self.queued_ms,
                    text_encode_ms: timings.text_encode_ms,
                    image_encode_ms: timings.image_encode_ms,
                    denoise_ms: timings.denoise_ms,
                    decode_ms: timings.decode_ms,
                    encode_ms: millis(encoding.elapsed()),
                },
            }),
            Err(error) => self.fail(&GeneratorError::failed(error)),
        }
    }

    /// The file of image `index`.
    fn file(
        &self,
        picture: &Picture,
        index: u64,
        circumstances: &[(&'static str, String)],
    ) -> Result<EventImage, EncodeError> {
        let seed = self.seed.wrapping_add(index);
        let texts = match self.output.metadata {
            true => metadata::texts(&self.described, seed, circumstances),
            false => Vec::new(),
        };
        let (texts, left_out) = fitting(self.output.format, texts)?;
        self.warn(left_out.into_iter().collect());
        Ok(EventImage {
            image: ImageData::new(encode_image(picture, &self.output, &texts)?),
            format: self.output.format,
            seed,
            width: picture.width(),
            height: picture.height(),
        })
    }
}
