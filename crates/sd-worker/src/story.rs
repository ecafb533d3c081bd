//! What a job tells, shown while it comes: the same for a worker of one's own and for one far away.

use std::fmt::Write;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use operations_contract::{ErrorCode, ErrorDetail, EventImage, JobEvent, Terminator, Timings};

use crate::exit::Failure;
use crate::previews::PreviewFile;

/// What is said of a job that somebody cancelled.
pub(crate) const CANCELLED: &str = "the job was cancelled";

/// What a finished job told.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) images: Vec<EventImage>,
    pub(crate) timings: Timings,
}

/// How a job's progress is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bar {
    unit: &'static str,
    quiet: bool,
}

impl Bar {
    /// A bar that counts `unit`s, or none.
    pub(crate) fn new(unit: &'static str, quiet: bool) -> Self {
        Self { unit, quiet }
    }
}

/// A job's story so far.
#[derive(Debug)]
pub(crate) struct Story {
    bar: ProgressBar,
    done: Option<Done>,
    error: Option<ErrorDetail>,
    previews: Option<PreviewFile>,
}

impl Story {
    /// Of a job whose progress is shown so, and whose pictures on the way go there.
    pub(crate) fn new(bar: Bar, previews: Option<PreviewFile>) -> Self {
        Self { bar: progress_bar(bar), done: None, error: None, previews }
    }

    /// What happens next.
    pub(crate) fn tell(&mut self, event: JobEvent) {
        match event {
            JobEvent::Started { steps, .. } => self.bar.set_length(steps.into()),
            JobEvent::Progress { step, total_steps, .. } => {
                self.bar.set_length(total_steps.into());
                self.bar.set_position(step.into());
            }
            JobEvent::Narration { message, .. } => self.note(&message),
            JobEvent::Preview { image, .. } => {
                let shown = self.previews.as_ref().map(|file| file.show(image.bytes()));
                if let Some(Err(Failure { message, .. })) = shown {
                    // The picture itself is worth more than those on the way.
                    self.note(&format!("no preview: {message}"));
                }
            }
            JobEvent::Complete { images, timings, .. } => self.done = Some(Done { images, timings }),
            JobEvent::Error(detail) => self.error = Some(detail),
            _ => {}
        }
    }

    /// Something for people, above the bar.
    pub(crate) fn note(&self, message: &str) {
        self.bar.suspend(|| eprintln!("note: {message}"));
    }

    /// How it came out.
    pub(crate) fn end(self, end: Terminator) -> Result<Done, Failure> {
        self.bar.finish_and_clear();
        match (end, self.done, self.error) {
            (Terminator::Done, Some(done), _) => Ok(done),
            (Terminator::Cancelled, ..) => Err(Failure::failed(CANCELLED)),
            (_, _, Some(detail))
                if matches!(detail.code, ErrorCode::UnsupportedOperation | ErrorCode::OutOfMemory) =>
            {
                Err(Failure::refused(detail.message))
            }
            (_, _, Some(detail)) => Err(Failure::failed(detail.message)),
            (end, ..) => Err(Failure::failed(end)),
        }
    }
}

fn progress_bar(Bar { unit, quiet }: Bar) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if quiet {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template(&format!(
        "{{bar:30}} {unit} {{pos}}/{{len}}  {{per_sec}}  {{eta}} left"
    ));
    if let Ok(style) = style {
        bar.set_style(style.with_key("per_sec", |state: &ProgressState, out: &mut dyn Write| {
            // Nothing can be done about a bar that cannot be drawn.
            let _ = write!(out, "{:.2} it/s", state.per_sec());
        }));
    }
    bar
}
