//! Previews are made beside the steps, and belong to the story all the same.

use std::time::{Duration, Instant};

use operations_contract::{JobEvent, JobId, Operation, Preview, Terminator};

use crate::support::{Story, Worker};

fn job(worker: &Worker, prompt: &str, steps: u32) -> JobId {
    let mut operation = Operation::generate(prompt);
    let common = operation.common_mut().unwrap();
    (common.steps, common.preview) = (Some(steps), Some(Preview::default()));
    worker.accept(operation)
}

fn shown(story: &Story) -> Vec<u32> {
    let step = |(_, event): &(u64, JobEvent)| match event {
        JobEvent::Preview { step, .. } => Some(*step),
        _ => None,
    };
    story.events.iter().filter_map(step).collect()
}

/// Waits until the job's steps are all told.
async fn stepped(worker: &Worker, id: &JobId, steps: u32) {
    let begun = Instant::now();
    while worker.router.job(id).unwrap().progress.is_none_or(|progress| progress.step < steps) {
        assert!(begun.elapsed() < Duration::from_secs(10), "the steps wait for previews");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn steps_go_on_while_a_preview_is_made_and_the_newest_are_told_before_the_end() {
    let worker = Worker::start().await;
    let id = job(&worker, "slow preview", 12);
    stepped(&worker, &id, 12).await;
    worker.gate.open();
    let story = worker.story(&id).await;
    let shown = shown(&story);
    // The one that was being made may have been any that came before.
    assert!(shown.ends_with(&[9, 10, 11, 12]) && (4..=5).contains(&shown.len()), "{shown:?}");
    assert_eq!((story.types().last(), &story.end), (Some(&"complete"), &Terminator::Done));
}

#[tokio::test]
async fn none_is_lost_where_there_is_time() {
    let worker = Worker::start().await;
    for _ in 0..20 {
        let id = job(&worker, "a cat", 4);
        assert_eq!(shown(&worker.story(&id).await), [1, 2, 3, 4]);
    }
}

#[tokio::test]
async fn no_preview_follows_the_end_of_a_cancelled_job() {
    let worker = Worker::start().await;
    let id = job(&worker, "gated slow preview", 5);
    worker.gate.reached().await;
    // The first step, and then either the second or the preview of the first stand before the gate.
    worker.gate.let_through(1);
    stepped(&worker, &id, 1).await;
    worker.router.cancel(&id).unwrap();
    worker.gate.open();
    let story = worker.story(&id).await;
    assert_eq!((story.types().last(), &story.end), (Some(&"error"), &Terminator::Cancelled));
    assert_eq!(worker.story(&worker.submit("next")).await.end, Terminator::Done);
}

#[tokio::test]
async fn a_preview_that_panics_is_told_and_costs_nothing_else() {
    let worker = Worker::start().await;
    let story = worker.story(&job(&worker, "broken preview", 2)).await;
    assert_eq!(story.end, Terminator::Done);
    let told = story.types().iter().filter(|kind| **kind == "narration").count();
    assert_eq!((told, shown(&story)), (2, vec![]));
    assert_eq!(shown(&worker.story(&job(&worker, "a cat", 1)).await), [1]);
}

#[tokio::test]
async fn the_thread_ends_with_the_engine() {
    let worker = Worker::start().await;
    let id = job(&worker, "a cat", 3);
    worker.router.shutdown();
    worker.engine.join().unwrap();
    assert!(worker.router.job(&id).unwrap().state.is_terminal());
}
