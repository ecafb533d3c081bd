//! Whose turn it is, through router and engine. The laws of turns stand beside `Waiting`.

use operations_contract::{JobId, Operation, ParsedOperation, Priority, Terminator};
use sd_engine::{Retention, SubmitError, SubmitOptions};

use crate::generator::TestGenerator;
use crate::support::Worker;

fn submit(worker: &Worker, caller: &str, prompt: &str, priority: Priority) -> JobId {
    let mut operation = Operation::generate(prompt);
    operation.common_mut().unwrap().priority = priority;
    let parsed = ParsedOperation { operation: Some(operation), faults: Vec::new() };
    let by = SubmitOptions::by(Some(caller.into()));
    worker.router.submit_with(parsed, by).expect("must be accepted").job_id
}

/// The prompts in the order in which they were begun.
fn order(worker: &Worker) -> Vec<String> {
    let lines = worker.log.lines();
    lines.iter().filter_map(|line| line.strip_suffix(":begin").map(str::to_owned)).collect()
}

#[tokio::test]
async fn callers_take_turns_and_priorities_come_before_them() {
    let worker = Worker::with(TestGenerator::new(), 32, Retention::default()).await;
    worker.occupy().await;
    let mut ids = Vec::new();
    for number in 0..4 {
        ids.push(submit(&worker, "ann", &format!("ann {number}"), Priority::Normal));
    }
    ids.push(submit(&worker, "ben", "ben 0", Priority::Normal));
    ids.push(submit(&worker, "cem", "cem low", Priority::Low));
    ids.push(submit(&worker, "ann", "ann high", Priority::High));
    worker.gate.open();
    for id in &ids {
        assert_eq!(worker.story(id).await.end, Terminator::Done);
    }
    // Ann's first job was the oldest of those of equal rights; then she had had her share.
    let order = order(&worker);
    assert_eq!(order[..2], ["gated occupation", "ann high"], "{order:?}");
    let at = |prompt: &str| order.iter().position(|other| other == prompt).unwrap();
    assert!(at("ben 0") < at("ann 1"), "{order:?}");
    assert_eq!(order.last().map(String::as_str), Some("cem low"), "{order:?}");
}

/// What a refused client is told follows from the speed that was measured.
#[tokio::test]
async fn the_more_waits_the_later_a_refused_client_shall_come_back() {
    let worker = Worker::with(TestGenerator::new(), 2, Retention::default()).await;
    worker.occupy().await;
    worker.submit("1");
    worker.submit("2");
    let told = || match worker.router.submit(Operation::generate("3")).unwrap_err() {
        SubmitError::QueueFull { retry_after, .. } => retry_after,
        other => panic!("{other}"),
    };
    let (first, second) = (told(), told());
    assert!(first.as_secs() >= 1 && second >= first, "{first:?} {second:?}");
    worker.gate.open();
}
