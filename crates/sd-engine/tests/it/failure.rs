//! What goes wrong ends one job, and the worker serves the next.

use operations_contract::{ErrorCode, JobEvent, JobState, Operation, Terminator};

use crate::support::Worker;

async fn fails_and_serves_on(prompt: &str, code: ErrorCode, message: &str) {
    let worker = Worker::start().await;
    let broken = worker.submit(prompt);
    let next = worker.submit("a cat");
    let story = worker.story(&broken).await;
    let JobEvent::Error(detail) = story.last() else { panic!("{story:?}") };
    assert_eq!(detail.code, code);
    assert!(detail.message.contains(message), "{detail}");
    assert_eq!(story.end, Terminator::Error(detail.message.clone()));
    let view = worker.router.job(&broken).unwrap();
    assert_eq!((view.state, view.error.as_ref()), (JobState::Failed, Some(detail)));
    assert_eq!(worker.story(&next).await.end, Terminator::Done);
    assert!(worker.router.readiness().is_ok());
}

#[tokio::test]
async fn panic_in_begin() {
    fails_and_serves_on("panic in begin", ErrorCode::InferenceFailed, "as asked for, in begin").await;
}

#[tokio::test]
async fn panic_in_step() {
    fails_and_serves_on("panic in step", ErrorCode::InferenceFailed, "as asked for, in step").await;
}

#[tokio::test]
async fn panic_in_finish() {
    fails_and_serves_on("panic in finish", ErrorCode::InferenceFailed, "as asked for, in finish").await;
}

#[tokio::test]
async fn error_in_begin_step_and_finish() {
    for place in ["begin", "step", "finish"] {
        let message = format!("failed in {place}");
        fails_and_serves_on(&format!("fail in {place}"), ErrorCode::InferenceFailed, &message).await;
    }
}

#[tokio::test]
async fn out_of_memory_has_its_own_code() {
    fails_and_serves_on("no memory", ErrorCode::OutOfMemory, "4 GiB wanted").await;
}

fn hurried(prompt: &str, deadline_ms: u64) -> Operation {
    let mut operation = Operation::generate(prompt);
    operation.common_mut().unwrap().deadline_ms = Some(deadline_ms);
    operation
}

#[tokio::test]
async fn a_deadline_passes_while_the_job_waits() {
    let worker = Worker::start().await;
    worker.occupy().await;
    let late = worker.accept(hurried("too late", 20));
    // The engine is still held back by the other job.
    let story = worker.story(&late).await;
    assert_eq!(story.types(), ["queued", "error"]);
    let JobEvent::Error(detail) = story.last() else { panic!() };
    assert_eq!(detail.code, ErrorCode::Timeout);
    worker.gate.open();
    assert_eq!(worker.story(&worker.submit("next")).await.end, Terminator::Done);
    assert!(!worker.log.lines().contains(&"too late:begin".to_owned()));
}

#[tokio::test]
async fn a_deadline_passes_while_the_job_runs() {
    let worker = Worker::start().await;
    let late = worker.accept(hurried("gated", 300));
    worker.gate.reached().await;
    tokio::time::sleep(std::time::Duration::from_millis(350)).await;
    worker.gate.let_through(1);
    let story = worker.story(&late).await;
    assert_eq!(story.types(), ["queued", "started", "progress", "error"]);
    let JobEvent::Error(detail) = story.last() else { panic!() };
    assert_eq!(detail.code, ErrorCode::Timeout);
}

#[tokio::test]
async fn deadlines_pass_in_their_own_order() {
    let worker = Worker::start().await;
    worker.occupy().await;
    let later = worker.accept(hurried("later", 60));
    let sooner = worker.accept(hurried("sooner", 20));
    let patient = worker.accept(hurried("patient", 60_000));
    let without = worker.submit("without");
    for late in [sooner, later] {
        assert_eq!(worker.story(&late).await.types(), ["queued", "error"]);
    }
    worker.gate.open();
    for done in [patient, without] {
        assert_eq!(worker.story(&done).await.end, Terminator::Done);
    }
}

#[tokio::test]
async fn a_deadline_passes_between_two_pictures() {
    let worker = Worker::start().await;
    let mut operation = hurried("slow decoding", 300);
    operation.common_mut().unwrap().num_images = 4;
    let late = worker.accept(operation);
    worker.gate.reached().await;
    tokio::time::sleep(std::time::Duration::from_millis(350)).await;
    worker.gate.let_through(1);
    let JobEvent::Error(detail) = worker.story(&late).await.last().clone() else { panic!() };
    assert_eq!(detail.code, ErrorCode::Timeout);
    assert_eq!(worker.story(&worker.submit("next")).await.end, Terminator::Done);
    let told = worker.log.lines();
    assert!(told.contains(&"slow decoding:picture 1".to_owned()), "{told:?}");
    assert!(!told.iter().any(|line| line == "slow decoding:picture 2" || line == "slow decoding:finish"));
}

#[tokio::test]
async fn a_deadline_in_time_disturbs_nothing() {
    let worker = Worker::start().await;
    assert_eq!(worker.story(&worker.accept(hurried("a cat", 60_000))).await.end, Terminator::Done);
}
