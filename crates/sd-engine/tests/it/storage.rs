//! A full store, repeated submissions, and lists page by page.

use operations_contract::{
    ErrorCode, JobEvent, JobState, Operation, OperationKind, ParsedOperation, Terminator,
};
use sd_engine::{Accepted, JobQuery, Order, Retention, Store, SubmitError, SubmitOptions};

use crate::generator::TestGenerator;
use crate::support::Worker;

fn parsed(operation: Operation) -> ParsedOperation {
    ParsedOperation { operation: Some(operation), faults: Vec::new() }
}

fn submit_as(
    worker: &Worker,
    caller: Option<&str>,
    key: &str,
    prompt: &str,
) -> Result<Accepted, SubmitError> {
    let options = SubmitOptions::by(caller.map(Into::into)).under(Some(key.into()));
    worker.router.submit_with(parsed(Operation::generate(prompt)), options)
}

#[tokio::test]
async fn the_same_key_is_the_same_job() {
    let worker = Worker::start().await;
    let first = submit_as(&worker, None, "k", "a cat").unwrap();
    let again = submit_as(&worker, None, "k", "a cat").unwrap();
    assert_eq!((&again.job_id, again.seed), (&first.job_id, first.seed));
    assert_eq!((first.repeated, again.repeated), (false, true));
    worker.story(&first.job_id).await;
    assert_eq!(submit_as(&worker, None, "k", "a cat").unwrap().job_id, first.job_id, "also when it is over");
    assert_eq!(worker.router.jobs().len(), 1);
    assert_eq!(
        submit_as(&worker, None, "k", "a dog"),
        Err(SubmitError::KeyReused { job_id: first.job_id.clone() })
    );
    // Another's key of the same name is another key.
    let ada = submit_as(&worker, Some("ada"), "k", "a dog").unwrap();
    let bob = submit_as(&worker, Some("bob"), "k", "a dog").unwrap();
    assert!(ada.job_id != bob.job_id && ada.job_id != first.job_id);
}

#[tokio::test]
async fn a_key_lives_as_long_as_its_job() {
    let retention = Retention { max_jobs: 1, ..Retention::default() };
    let worker = Worker::with(TestGenerator::new(), 8, retention).await;
    let first = submit_as(&worker, None, "k", "a cat").unwrap();
    worker.story(&first.job_id).await;
    let other = worker.submit("another");
    worker.story(&other).await;
    let again = submit_as(&worker, None, "k", "something else").unwrap();
    assert!(!again.repeated && again.job_id != first.job_id);
}

#[tokio::test]
async fn a_repeated_submission_is_answered_when_nothing_new_would_be() {
    let worker = Worker::with(TestGenerator::new(), 1, Retention::default()).await;
    worker.occupy().await;
    let first = submit_as(&worker, None, "k", "a cat").unwrap();
    assert!(matches!(submit_as(&worker, None, "other", "a cat"), Err(SubmitError::QueueFull { .. })));
    assert_eq!(submit_as(&worker, None, "k", "a cat").unwrap().job_id, first.job_id);
    worker.router.shutdown();
    assert_eq!(submit_as(&worker, None, "k", "a cat").unwrap().job_id, first.job_id);
    worker.gate.open();
}

#[tokio::test]
async fn submissions_at_the_same_time_become_one_job() {
    let worker = Worker::start().await;
    let ids: Vec<_> = std::thread::scope(|scope| {
        let tries: Vec<_> =
            (0..8).map(|_| scope.spawn(|| submit_as(&worker, None, "k", "a cat").unwrap().job_id)).collect();
        tries.into_iter().map(|submitted| submitted.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

/// `max_page_count` gives the same SQLITE_FULL as a full disk, without one.
#[tokio::test]
async fn a_full_store_refuses_what_is_new_and_finishes_what_runs() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let worker = Worker::over(store.clone(), TestGenerator::new(), 200, Retention::default()).await;
    let done = worker.submit("early");
    worker.story(&done).await;
    // Its files do not fit into what is free in the pages that are there.
    let mut large = Operation::generate("gated occupation");
    let common = large.common_mut().unwrap();
    (common.width, common.height, common.num_images) = (Some(1024), Some(1024), 4);
    let running = worker.accept(large);
    worker.gate.reached().await;
    store.limit_bytes(0).unwrap();
    let refused = (0..100).find_map(|_| worker.router.submit(Operation::generate("x".repeat(9000))).err());
    let refused = refused.expect("the store never fills");
    assert!(matches!(refused, SubmitError::StorageFull(_)), "{refused}");
    assert_eq!(refused.detail().code, ErrorCode::StorageFull);

    worker.gate.open();
    let story = worker.story(&running).await;
    assert_eq!(story.end, Terminator::Done, "{:?}", story.events);
    assert_eq!(
        story.types()[story.events.len() - 2..],
        ["narration", "complete"],
        "it is told that it is at risk"
    );
    assert!(worker.router.image(&running, 0).is_some());
    assert_eq!(worker.router.job(&running).unwrap().state, JobState::Completed);
    assert!(worker.router.image(&done, 0).is_some(), "what is written can be read");

    // Room again.
    store.limit_bytes(1 << 30).unwrap();
    let late = worker.submit("late");
    assert_eq!(worker.story(&late).await.end, Terminator::Done);
    worker.router.tidy();
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let next = Worker::over(Store::open(copy.path()).unwrap(), TestGenerator::new(), 8, Retention::default());
    let next = next.await;
    next.router.resume();
    assert_eq!(next.router.job(&running).unwrap().state, JobState::Completed, "it was written down later");
    let JobEvent::Complete { images, .. } = story.last() else { panic!() };
    assert_eq!(*images[0].image.bytes(), next.router.image(&running, 0).unwrap().bytes[..]);
}

#[tokio::test]
async fn lists_are_filtered_and_come_in_pages() {
    let worker = Worker::start().await;
    let mut ids = Vec::new();
    for prompt in ["1", "2", "fail in step", "4", "5"] {
        let id = worker.submit(prompt);
        worker.story(&id).await;
        ids.push(id);
    }
    let waiting = {
        worker.occupy().await;
        worker.submit("waits")
    };
    let list = |query: JobQuery| {
        let page = worker.router.list(&query).unwrap();
        (page.jobs.into_iter().map(|job| job.job_id).collect::<Vec<_>>(), page.next)
    };
    for (order, expected) in
        [(Order::Oldest, ids.clone()), (Order::Newest, ids.iter().rev().cloned().collect())]
    {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let states = vec![JobState::Completed, JobState::Failed];
            let query = JobQuery { states, order, limit: Some(2), after, ..JobQuery::default() };
            let (page, next) = list(query);
            assert!(page.len() <= 2);
            found.extend(page);
            after = next;
            if next.is_none() {
                break;
            }
        }
        assert_eq!(found, expected);
    }
    let of = |states: Vec<JobState>| list(JobQuery { states, ..JobQuery::default() }).0;
    assert_eq!(of(vec![JobState::Failed]), [ids[2].clone()]);
    assert_eq!(of(vec![JobState::Queued]), [waiting]);
    assert_eq!(of(vec![JobState::Running]).len(), 1);
    let model = |model: &str| list(JobQuery { model: Some(model.into()), ..JobQuery::default() }).0.len();
    assert_eq!((model("test-model"), model("other")), (7, 0));
    let operation = |kind| list(JobQuery { operation: Some(kind), ..JobQuery::default() }).0.len();
    assert_eq!((operation(OperationKind::ImageGeneration), operation(OperationKind::ImageInpaint)), (7, 0));
    let created = worker.router.job(&ids[3]).unwrap().created_ms;
    let since = list(JobQuery { since_ms: Some(created), ..JobQuery::default() }).0;
    assert!(since.contains(&ids[3]) && since.contains(&ids[4]));
    let until = list(JobQuery { until_ms: Some(created), ..JobQuery::default() }).0;
    assert!(!until.contains(&ids[3]) && until.len() + since.len() == 7);
    worker.gate.open();
}
