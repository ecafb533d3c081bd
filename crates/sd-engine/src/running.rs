//! One job in the engine's hands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use operations_contract::{
    ErrorCode, EventImage, ImageData, ImageFormat, JobEvent, NarrationLevel, Operation, Output, Preview,
    Timings,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::encode::{EncodeError, encode_image, fitting, shrink};
use crate::generator::{GeneratedImages, GeneratorError, StepReport};
use crate::job::{JobSink, Outcome, millis};
use crate::metadata;
use crate::picture::Picture;
use crate::waiting::Caller;
use crate::work::Work;

/// A job that was begun, with its generation.
pub(crate) struct Running<A> {
    pub(crate) generation: A,
    pub(crate) ticket: Ticket,
    /// What is still to do of the ticket's work, in its units.
    pub(crate) left: f64,
    /// The time that it took beside its steps.
    pub(crate) rest: Duration,
}

/// What the engine knows of a running job beside the generation.
pub(crate) struct Ticket {
    pub(crate) sink: JobSink,
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
            self.show(step, shrink(picture, wanted.max_side));
        }
    }

    fn show(&self, step: u32, picture: Picture) {
        let output = Output { format: ImageFormat::Jpeg, quality: 80, metadata: false };
        match encode_image(&picture, &output, &[]) {
            Ok(bytes) => {
                let image = ImageData::new(bytes);
                self.sink.tell(JobEvent::Preview { step, image, format: output.format });
            }
            Err(error) => self.warn(vec![format!("no preview of step {step}: {error}")]),
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
        let GeneratedImages { images, timings, warnings, circumstances } = generated;
        self.warn(warnings);
        let encoding = Instant::now();
        let files: Result<Vec<EventImage>, EncodeError> =
            (0u64..).zip(&images).map(|(k, picture)| self.file(picture, k, &circumstances)).collect();
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
        let Described { operation, parameters } = &*self.described;
        let texts = match self.output.metadata {
            true => metadata::texts(operation, parameters, seed, circumstances).to_vec(),
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
