//! Previews are made beside the steps, and belong to the story all the same.

use std::time::{Duration, Instant};

use operations_contract::{JobEvent, JobId, Operation, Preview, Terminator};
use sd_engine::{JobUpdate, Retention};

use crate::generator::TestGenerator;
use crate::support::{Story, Worker, next};

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

/// Waits until the preview of a step is told.
async fn told(worker: &Worker, id: &JobId, step: u32) {
    let mut updates = worker.router.subscribe(id, 0).unwrap();
    while let Some(JobUpdate::Event { event, .. }) = next(&mut updates).await {
        if matches!(event, JobEvent::Preview { step: shown, .. } if shown == step) {
            return;
        }
    }
    panic!("the story ended without a preview of step {step}");
}

/// Waits until the log has a line.
async fn logged(worker: &Worker, line: &str) {
    let begun = Instant::now();
    while !worker.log.lines().iter().any(|other| other == line) {
        assert!(begun.elapsed() < Duration::from_secs(10), "no `{line}` in {:?}", worker.log.lines());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn of_those_that_a_network_decodes_the_newest_is_next() {
    let worker = Worker::start().await;
    let id = job(&worker, "gated slow network", 6);
    worker.gate.let_through(1);
    worker.network.reached().await;
    worker.gate.let_through(3);
    stepped(&worker, &id, 4).await;
    worker.network.open();
    told(&worker, &id, 1).await;
    told(&worker, &id, 4).await;
    worker.gate.open();
    let story = worker.story(&id).await;
    assert!(shown(&story).starts_with(&[1, 4]), "{:?}", shown(&story));
    assert_eq!((story.types().last(), &story.end), (Some(&"complete"), &Terminator::Done));
}

#[tokio::test]
async fn the_end_does_not_wait_for_what_a_network_decodes() {
    let worker = Worker::start().await;
    let id = job(&worker, "slow network", 6);
    let story = worker.story(&id).await;
    assert_eq!((shown(&story), &story.end), (vec![], &Terminator::Done));
    worker.network.open();
    // Whichever it was: nothing of the others is begun.
    let next = job(&worker, "network", 1);
    assert_eq!(worker.story(&next).await.end, Terminator::Done);
    let begun = worker.log.lines().iter().filter(|line| line.starts_with("slow network:decodes")).count();
    assert!(begun <= 1, "{:?}", worker.log.lines());
}

#[tokio::test]
async fn what_a_network_decodes_for_a_cancelled_job_is_given_up() {
    let worker = Worker::start().await;
    let id = job(&worker, "gated slow network", 6);
    worker.gate.let_through(1);
    worker.network.reached().await;
    worker.gate.let_through(2);
    stepped(&worker, &id, 3).await;
    worker.router.cancel(&id).unwrap();
    worker.gate.open();
    let story = worker.story(&id).await;
    assert_eq!((shown(&story), &story.end), (vec![], &Terminator::Cancelled));
    // The engine lets go of a job before it takes up the next.
    assert_eq!(worker.story(&worker.submit("next")).await.end, Terminator::Done);
    worker.network.open();
    logged(&worker, "gated slow network:gives up 1").await;
    let decoded = worker.log.lines().iter().filter(|line| line.contains("decodes")).count();
    assert_eq!(decoded, 1, "{:?}", worker.log.lines());
}

#[tokio::test]
async fn jobs_that_run_together_each_have_the_previews_of_their_network() {
    let generator = TestGenerator { max_active: 2, ..TestGenerator::new() };
    let worker = Worker::with(generator, 8, Retention::default()).await;
    let first = job(&worker, "gated network a", 4);
    worker.gate.reached().await;
    // It joins after the first's first step.
    let second = job(&worker, "gated network b", 4);
    worker.gate.let_through(1);
    told(&worker, &first, 1).await;
    worker.gate.let_through(2);
    told(&worker, &first, 2).await;
    told(&worker, &second, 1).await;
    worker.gate.open();
    for (id, begin) in [(first, &[1, 2][..]), (second, &[1])] {
        let story = worker.story(&id).await;
        assert!(shown(&story).starts_with(begin), "{:?}", shown(&story));
        assert_eq!(story.end, Terminator::Done);
    }
}

#[tokio::test]
async fn a_network_that_panics_is_told_and_costs_nothing_else() {
    let worker = Worker::start().await;
    let id = job(&worker, "gated broken network", 2);
    worker.gate.let_through(1);
    let mut updates = worker.router.subscribe(&id, 0).unwrap();
    loop {
        match next(&mut updates).await {
            Some(JobUpdate::Event { event: JobEvent::Narration { message, .. }, .. }) => {
                assert_eq!(message, "no preview of step 1: making it panicked");
                break;
            }
            Some(JobUpdate::Event { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    worker.gate.let_through(1);
    assert_eq!(worker.story(&id).await.end, Terminator::Done);
    let id = job(&worker, "gated network", 2);
    worker.gate.let_through(1);
    told(&worker, &id, 1).await;
    worker.gate.let_through(1);
    assert_eq!(worker.story(&id).await.end, Terminator::Done);
}

#[tokio::test]
async fn the_threads_end_with_the_engine() {
    let worker = Worker::start().await;
    let id = job(&worker, "a cat", 3);
    worker.router.shutdown();
    worker.engine.join().unwrap();
    assert!(worker.router.job(&id).unwrap().state.is_terminal());
}
