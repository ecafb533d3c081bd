//! Jobs that are over are forgotten; others never.

use std::time::Duration;

use operations_contract::{JobId, JobState};
use sd_engine::Retention;

use crate::generator::TestGenerator;
use crate::support::Worker;

async fn worker(retention: Retention) -> Worker {
    Worker::with(TestGenerator::new(), 8, retention).await
}

async fn run(worker: &Worker, prompt: &str) -> JobId {
    let id = worker.submit(prompt);
    worker.story(&id).await;
    id
}

fn remembered(worker: &Worker) -> Vec<JobId> {
    worker.router.jobs().into_iter().map(|job| job.job_id).collect()
}

#[tokio::test]
async fn by_count_the_oldest_first() {
    let worker = worker(Retention { max_jobs: 2, ..Retention::default() }).await;
    let first = run(&worker, "1").await;
    let (second, third) = (run(&worker, "2").await, run(&worker, "3").await);
    assert_eq!(remembered(&worker), [second, third]);
    assert!(worker.router.job(&first).is_none() && worker.router.subscribe(&first, 0).is_none());
}

#[tokio::test]
async fn by_age() {
    let worker = worker(Retention { max_age: Duration::from_millis(30), ..Retention::default() }).await;
    let id = run(&worker, "1").await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert!(worker.router.job(&id).is_none());
    assert!(remembered(&worker).is_empty());
}

#[tokio::test]
async fn by_weight_but_never_the_newest() {
    let worker = worker(Retention { max_bytes: 1, ..Retention::default() }).await;
    run(&worker, "1").await;
    let second = run(&worker, "2").await;
    assert_eq!(remembered(&worker), [second]);
}

#[tokio::test]
async fn what_is_not_over_stays() {
    let worker = worker(Retention { max_jobs: 0, max_age: Duration::ZERO, max_bytes: 0 }).await;
    let running = worker.occupy().await;
    let waiting = worker.submit("waits");
    let mut follower = worker.router.subscribe(&waiting, 0).unwrap();
    assert_eq!(remembered(&worker), [running.clone(), waiting]);
    assert_eq!(worker.router.job(&running).unwrap().state, JobState::Running);
    worker.gate.open();
    // Who follows a job hears it to the end, also when the registry has forgotten it meanwhile.
    let mut updates = 0;
    while crate::support::next(&mut follower).await.is_some() {
        updates += 1;
    }
    assert_eq!(updates, 7);
    assert!(remembered(&worker).is_empty());
}
