//! Going down: what runs is finished, what waits is told, what is new is refused.

use std::time::Duration;

use operations_contract::{ErrorCode, JobEvent, Operation, Terminator};
use sd_engine::{ModelStatus, SubmitError};

use crate::support::Worker;

#[tokio::test]
async fn running_jobs_finish_and_waiting_ones_are_refused() {
    let worker = Worker::start().await;
    let running = worker.occupy().await;
    let waiting = worker.submit("waits");
    worker.router.shutdown();
    assert_eq!(worker.router.submit(Operation::generate("new")), Err(SubmitError::ShuttingDown));
    assert!(worker.router.readiness().is_err());
    worker.gate.open();
    let story = worker.story(&waiting).await;
    assert_eq!(story.types(), ["queued", "error"]);
    let JobEvent::Error(detail) = story.last() else { panic!() };
    assert_eq!(detail.code, ErrorCode::ShuttingDown);
    assert_eq!(worker.story(&running).await.end, Terminator::Done);

    tokio::time::timeout(Duration::from_secs(10), worker.models.stopped()).await.unwrap();
    assert_eq!(worker.models.status(), ModelStatus::Stopped);
    worker.engine.join().unwrap();
}

#[tokio::test]
async fn an_idle_engine_stops_at_once_and_twice_is_no_error() {
    let worker = Worker::start().await;
    worker.router.shutdown();
    worker.router.shutdown();
    tokio::time::timeout(Duration::from_secs(10), worker.models.stopped()).await.unwrap();
    worker.engine.join().unwrap();
}

#[tokio::test]
async fn an_engine_without_a_router_stops() {
    let Worker { router, engine, models, .. } = Worker::start().await;
    drop(router);
    tokio::time::timeout(Duration::from_secs(10), models.stopped()).await.unwrap();
    engine.join().unwrap();
}
