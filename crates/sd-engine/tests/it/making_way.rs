//! What is not to be kept any longer makes way where the store is full.

use std::time::Duration;

use operations_contract::{JobId, Operation, Terminator};
use sd_engine::{Retention, Store};

use crate::generator::TestGenerator;
use crate::support::Worker;

/// Pictures that are much larger than what is free in the pages of a small store.
fn large(prompt: &str, images: u32) -> Operation {
    let mut operation = Operation::generate(prompt);
    let common = operation.common_mut().unwrap();
    (common.width, common.height, common.num_images) = (Some(1024), Some(1024), images);
    operation
}

/// Runs a job to its end, for which there is no room.
async fn end_in_a_full_store(worker: &Worker, store: &Store) -> JobId {
    let running = worker.accept(large("gated occupation", 2));
    worker.gate.reached().await;
    store.limit_bytes(0).unwrap();
    worker.gate.open();
    assert_eq!(worker.story(&running).await.end, Terminator::Done);
    running
}

/// Whoever follows a job is told of its end before the engine has found no room for it.
async fn forgotten(worker: &Worker, id: &JobId) {
    for _ in 0..200 {
        worker.router.tidy();
        if worker.router.job(id).is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{id} is still kept");
}

#[tokio::test]
async fn the_oldest_makes_way_for_the_one_that_ends() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let retention = Retention { max_jobs: 1, ..Retention::default() };
    let worker = Worker::over(store.clone(), TestGenerator::new(), 8, retention).await;
    let first = worker.accept(large("first", 4));
    worker.story(&first).await;
    end_in_a_full_store(&worker, &store).await;
    forgotten(&worker, &first).await;
    // The second is written down: nothing else would let a new job in.
    let third = worker.submit("third");
    assert_eq!(worker.story(&third).await.end, Terminator::Done);
}

#[tokio::test]
async fn an_end_without_room_is_forgotten_when_it_is_too_old_to_be_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let retention = Retention { max_age: Duration::from_millis(50), ..Retention::default() };
    let worker = Worker::over(store.clone(), TestGenerator::new(), 8, retention).await;
    let id = end_in_a_full_store(&worker, &store).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    forgotten(&worker, &id).await;
    worker.submit("new");
}
