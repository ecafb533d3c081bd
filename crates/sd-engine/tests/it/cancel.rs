//! Cancelling.

use operations_contract::{ErrorCode, JobEvent, JobId, JobState, Terminator};
use sd_engine::CancelError;

use crate::support::Worker;

#[tokio::test]
async fn a_waiting_job_ends_at_once() {
    let worker = Worker::start().await;
    worker.occupy().await;
    let waiting = worker.submit("waits");
    assert_eq!(worker.router.cancel(&waiting), Ok(JobState::Cancelled));
    // The engine is still held back by the other job.
    let story = worker.story(&waiting).await;
    assert_eq!((story.types(), story.end), (vec!["queued", "error"], Terminator::Cancelled));
    worker.gate.open();
    worker.story(&worker.submit("next")).await;
    assert!(!worker.log.lines().iter().any(|line| line.starts_with("waits")));
}

#[tokio::test]
async fn a_running_job_ends_before_its_next_step() {
    let worker = Worker::start().await;
    let running = worker.occupy().await;
    assert_eq!(worker.router.cancel(&running), Ok(JobState::Running));
    assert_eq!(worker.router.cancel(&running), Ok(JobState::Running), "asking twice is no error");
    worker.gate.let_through(1);
    let story = worker.story(&running).await;
    assert_eq!(story.end, Terminator::Cancelled);
    let JobEvent::Error(detail) = story.last() else { panic!("{story:?}") };
    assert_eq!(detail.code, ErrorCode::Cancelled);
    assert_eq!(worker.router.job(&running).unwrap().state, JobState::Cancelled);
    assert_eq!(worker.log.lines(), ["gated occupation:begin", "gated occupation:1"]);
    assert_eq!(worker.story(&worker.submit("next")).await.end, Terminator::Done);
}

#[tokio::test]
async fn what_is_over_or_unknown_cannot_be_cancelled() {
    let worker = Worker::start().await;
    let done = worker.submit("a cat");
    worker.story(&done).await;
    assert_eq!(worker.router.cancel(&done), Err(CancelError::AlreadyOver));
    assert_eq!(worker.router.cancel(&JobId::new("job-none")), Err(CancelError::NotFound));
    assert_eq!(worker.router.job(&done).unwrap().state, JobState::Completed);
}

#[tokio::test]
async fn a_job_that_is_cancelled_in_its_last_step_is_not_decoded() {
    let worker = Worker::start().await;
    let mut operation = operations_contract::Operation::generate("gated");
    operation.common_mut().unwrap().steps = Some(1);
    let id = worker.accept(operation);
    worker.gate.reached().await;
    worker.router.cancel(&id).unwrap();
    worker.gate.open();
    assert_eq!(worker.story(&id).await.end, Terminator::Cancelled);
    worker.story(&worker.submit("next")).await;
    assert_eq!(worker.log.lines()[..3], ["gated:begin", "gated:1", "next:begin"]);
}

#[tokio::test]
async fn a_job_that_is_cancelled_while_pictures_are_decoded_ends_before_the_next() {
    let worker = Worker::start().await;
    let mut operation = operations_contract::Operation::generate("slow decoding");
    operation.common_mut().unwrap().num_images = 4;
    let id = worker.accept(operation.clone());
    worker.gate.reached().await;
    worker.router.cancel(&id).unwrap();
    worker.gate.let_through(1);
    assert_eq!(worker.story(&id).await.end, Terminator::Cancelled);
    let decoded = || worker.log.lines().iter().filter(|line| line.contains("picture")).count();
    assert_eq!(decoded(), 1);
    worker.gate.open();
    assert_eq!(worker.story(&worker.accept(operation)).await.end, Terminator::Done);
    assert_eq!(decoded(), 5);
}

#[tokio::test]
async fn who_was_told_that_a_job_ends_finds_no_images() {
    let worker = Worker::start().await;
    let id = worker.submit("slow finish");
    worker.gate.reached().await;
    assert_eq!(worker.router.cancel(&id), Ok(JobState::Running));
    worker.gate.open();
    assert_eq!(worker.story(&id).await.end, Terminator::Cancelled);
    assert!(worker.router.image(&id, 0).is_none());
}
