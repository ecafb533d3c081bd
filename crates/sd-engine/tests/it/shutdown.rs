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

/// Those who follow a job are told while its step still runs; afterwards nothing of it is left in the engine.
#[tokio::test]
async fn jobs_that_are_given_up_end_at_once() {
    let worker = Worker::start().await;
    let mut jobs = worker.router.activity();
    assert_eq!(*jobs.borrow(), 0);
    let (running, waiting) = (worker.occupy().await, worker.submit("waits"));
    assert_eq!(*jobs.borrow_and_update(), 2);
    assert_eq!(worker.router.abandon(), 2);
    for id in [&running, &waiting] {
        let story = worker.story(id).await;
        let JobEvent::Error(detail) = story.last() else { panic!("{story:?}") };
        assert_eq!(detail.code, ErrorCode::ShuttingDown);
    }
    assert_eq!(worker.router.abandon(), 0);
    worker.gate.open();
    // What it gives would hold the count fast.
    let none = tokio::time::timeout(Duration::from_secs(10), jobs.wait_for(|jobs| *jobs == 0)).await.is_ok();
    assert!(none, "the engine holds on to jobs that are over");
    // It lives on.
    let next = worker.submit("next");
    assert_eq!(worker.story(&next).await.end, Terminator::Done);
}
