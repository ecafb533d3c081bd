//! One job on a worker of its own, followed to its end.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use operations_contract::{ErrorCode, EventImage, JobEvent, JobId, Operation, Terminator, Timings};
use sd_engine::{EngineHandle, JobRouter, JobUpdate, ModelBoard};

use crate::exit::{Failure, Kind};

/// What a finished job told.
pub(crate) struct Done {
    pub(crate) images: Vec<EventImage>,
    pub(crate) timings: Timings,
}

/// How its progress is shown.
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

/// Submits the operation, follows its job to the end and stops the engine.
pub(crate) fn to_the_end(
    router: &JobRouter,
    models: &ModelBoard,
    engine: EngineHandle,
    operation: Operation,
    bar: Bar,
) -> Result<Done, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("no runtime: {error}")))?;
    let finished = runtime.block_on(async {
        models.settled().await;
        let accepted = router.submit(operation).map_err(Failure::refused)?;
        follow(router, &accepted.job_id, bar).await
    });
    router.shutdown();
    engine.join().map_err(Failure::failed)?;
    finished
}

/// Follows the job to its end, showing its progress. Ctrl-C cancels it.
async fn follow(router: &JobRouter, id: &JobId, bar: Bar) -> Result<Done, Failure> {
    let mut updates = router.subscribe(id, 0).ok_or_else(|| Failure::failed("the job is gone"))?;
    let bar = progress_bar(bar);
    let mut done = None;
    let mut error = None;
    let mut interrupted = false;
    loop {
        let update = tokio::select! {
            update = updates.next() => update,
            _ = tokio::signal::ctrl_c(), if !interrupted => {
                interrupted = true;
                // It may have ended in this very moment; then its end is what counts.
                let _ = router.cancel(id);
                continue;
            }
        };
        match update {
            Some(JobUpdate::Event { event, .. }) => match event {
                JobEvent::Started { steps, .. } => bar.set_length(steps.into()),
                JobEvent::Progress { step, total_steps, .. } => {
                    bar.set_length(total_steps.into());
                    bar.set_position(step.into());
                }
                JobEvent::Narration { message, .. } => bar.suspend(|| eprintln!("note: {message}")),
                JobEvent::Complete { images, timings, .. } => done = Some(Done { images, timings }),
                JobEvent::Error(detail) => error = Some(detail),
                _ => {}
            },
            Some(JobUpdate::End(end)) => {
                bar.finish_and_clear();
                return match (end, done, error) {
                    (Terminator::Done, Some(done), _) => Ok(done),
                    (Terminator::Cancelled, ..) => {
                        Err(Failure { kind: Kind::Interrupted, message: "interrupted".into() })
                    }
                    (_, _, Some(detail))
                        if matches!(
                            detail.code,
                            ErrorCode::UnsupportedOperation | ErrorCode::OutOfMemory
                        ) =>
                    {
                        Err(Failure::refused(detail.message))
                    }
                    (_, _, Some(detail)) => Err(Failure::failed(detail.message)),
                    (end, ..) => Err(Failure::failed(end)),
                };
            }
            None => return Err(Failure::failed("the job ended without a word")),
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
        bar.set_style(style.with_key(
            "per_sec",
            |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
                // Nothing can be done about a bar that cannot be drawn.
                let _ = write!(out, "{:.2} it/s", state.per_sec());
            },
        ));
    }
    bar
}
