//! One job on a worker of its own, followed to its end.

use operations_contract::{JobId, Operation, Terminator};
use sd_engine::{EngineHandle, JobRouter, JobUpdate, ModelBoard};

use crate::exit::{Failure, Kind};
use crate::previews::PreviewFile;
use crate::story::{Bar, Done, Story};

/// Submits the operation, follows its job to the end and stops the engine.
pub(crate) fn to_the_end(
    router: &JobRouter,
    models: &ModelBoard,
    engine: EngineHandle,
    operation: Operation,
    bar: Bar,
    previews: Option<PreviewFile>,
) -> Result<Done, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("no runtime: {error}")))?;
    let finished = runtime.block_on(async {
        models.settled().await;
        let accepted = router.submit(operation).map_err(Failure::refused)?;
        follow(router, &accepted.job_id, bar, previews).await
    });
    router.shutdown();
    engine.join().map_err(Failure::failed)?;
    finished
}

/// Follows the job to its end, showing its progress. Ctrl-C cancels it.
async fn follow(
    router: &JobRouter,
    id: &JobId,
    bar: Bar,
    previews: Option<PreviewFile>,
) -> Result<Done, Failure> {
    let mut updates = router.subscribe(id, 0).ok_or_else(|| Failure::failed("the job is gone"))?;
    let mut story = Story::new(bar, previews);
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
            Some(JobUpdate::Event { event, .. }) => story.tell(event),
            Some(JobUpdate::End(end)) => {
                let by_ctrl_c = interrupted && end == Terminator::Cancelled;
                return story.end(end).map_err(|failure| match by_ctrl_c {
                    true => Failure { kind: Kind::Interrupted, message: "interrupted".into() },
                    false => failure,
                });
            }
            None => return Err(Failure::failed("the job ended without a word")),
        }
    }
}
