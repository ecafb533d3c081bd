//! A generator that takes several generations at once.

use operations_contract::{Operation, Terminator};
use sd_engine::Retention;

use crate::generator::TestGenerator;
use crate::support::Worker;

async fn pair() -> Worker {
    Worker::with(TestGenerator { max_active: 2, ..TestGenerator::new() }, 8, Retention::default()).await
}

fn with_steps(prompt: &str, steps: u32) -> Operation {
    let mut operation = Operation::generate(prompt);
    operation.common_mut().unwrap().steps = Some(steps);
    operation
}

#[tokio::test]
async fn newcomers_join_between_steps_and_each_leaves_in_its_turn() {
    let worker = pair().await;
    let long = worker.accept(with_steps("gated long", 4));
    let short = worker.accept(with_steps("gated short", 1));
    let third = worker.accept(with_steps("gated third", 1));
    worker.gate.open();
    for id in [&long, &short, &third] {
        assert_eq!(worker.story(id).await.end, Terminator::Done);
    }
    let lines = worker.log.lines();
    let at = |line: &str| lines.iter().position(|other| other == line).unwrap_or_else(|| panic!("{lines:?}"));
    assert!(at("gated short:finish") < at("gated long:4"), "{lines:?}");
    assert!(at("gated third:begin") > at("gated short:finish"), "{lines:?}");
    assert!(at("gated third:begin") < at("gated long:finish"), "{lines:?}");
}

/// Only what fits into one forward pass shares it.
#[tokio::test]
async fn another_size_waits_until_nothing_runs() {
    let worker = pair().await;
    let first = worker.accept(with_steps("gated first", 2));
    worker.gate.reached().await;
    let mut other = with_steps("gated other", 1);
    other.common_mut().unwrap().width = Some(128);
    let (other, joins) = (worker.accept(other), worker.accept(with_steps("gated joins", 1)));
    worker.gate.open();
    for id in [&first, &other, &joins] {
        assert_eq!(worker.story(id).await.end, Terminator::Done);
    }
    let lines = worker.log.lines();
    let at = |line: &str| lines.iter().position(|other| other == line).unwrap_or_else(|| panic!("{lines:?}"));
    assert!(at("gated joins:begin") < at("gated first:finish"), "{lines:?}");
    assert!(at("gated other:begin") > at("gated first:finish"), "{lines:?}");
}

#[tokio::test]
async fn cancelling_one_leaves_the_other() {
    let worker = pair().await;
    let (stays, goes) = (worker.submit("gated stays"), worker.submit("gated goes"));
    worker.gate.let_through(2);
    worker.router.cancel(&goes).unwrap();
    worker.gate.open();
    assert_eq!(worker.story(&goes).await.end, Terminator::Cancelled);
    assert_eq!(worker.story(&stays).await.end, Terminator::Done);
}

#[tokio::test]
async fn an_error_of_one_leaves_the_other() {
    let worker = pair().await;
    let (stays, fails) = (worker.submit("gated stays"), worker.submit("gated fail in step"));
    worker.gate.open();
    assert!(matches!(worker.story(&fails).await.end, Terminator::Error(_)));
    assert_eq!(worker.story(&stays).await.end, Terminator::Done);
}
