//! One store, several lives.

use std::path::Path;
use std::time::Duration;

use operations_contract::{
    ErrorCode, ImageData, ImageTransform, JobEvent, JobId, JobState, NarrationLevel, Operation, Terminator,
};
use sd_engine::{Retention, Store, StoreError, SubmitError};

use crate::generator::TestGenerator;
use crate::support::Worker;

/// A life of a worker over the jobs in `dir`.
pub(crate) async fn life(dir: &Path) -> Worker {
    life_with(dir, TestGenerator::new()).await
}

async fn life_with(dir: &Path, generator: TestGenerator) -> Worker {
    let worker = Worker::over(Store::open(dir).unwrap(), generator, 8, Retention::default()).await;
    worker.router.resume();
    worker
}

/// What the disk has at this moment, in a directory of its own: what a `kill -9` would leave.
pub(crate) fn killed(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(dir).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

fn seeded(prompt: &str, seed: u64) -> Operation {
    let mut operation = Operation::generate(prompt);
    operation.common_mut().unwrap().seed = Some(seed);
    operation
}

fn images(story: &crate::support::Story) -> Vec<ImageData> {
    let JobEvent::Complete { images, .. } = story.last() else { panic!("{:?}", story.last()) };
    images.iter().map(|image| image.image.clone()).collect()
}

#[tokio::test]
async fn a_finished_job_is_there_after_a_restart_with_its_story() {
    let dir = tempfile::tempdir().unwrap();
    let worker = life(dir.path()).await;
    let id = worker.submit("a cat");
    let told = worker.story(&id).await;
    let view = worker.router.job(&id).unwrap();
    let copy = killed(dir.path());

    let worker = life(copy.path()).await;
    assert_eq!(worker.router.job(&id), Some(view));
    assert_eq!(worker.story(&id).await, told);
    assert_eq!(worker.router.image(&id, 0).unwrap().bytes[..], *images(&told)[0].bytes());
    assert!(worker.router.image(&id, 1).is_none());
    assert!(worker.log.lines().is_empty(), "it ran again");
}

#[tokio::test]
async fn what_waited_and_what_ran_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let worker = life(dir.path()).await;
    let alone = {
        let id = worker.accept(seeded("gated alone", 77));
        worker.gate.let_through(3);
        images(&worker.story(&id).await)
    };
    let running = worker.accept(seeded("gated alone", 77));
    worker.gate.reached().await;
    worker.gate.let_through(1);
    // Its first step was told to somebody.
    let mut early = worker.router.subscribe(&running, 0).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(crate::support::next(&mut early).await.unwrap());
    }
    let waiting = worker.accept(seeded("waits", 5));
    let cancelled = worker.submit("wanted no more");
    worker.router.cancel(&cancelled).unwrap();
    let copy = killed(dir.path());

    let worker = life(copy.path()).await;
    worker.gate.open();
    let story = worker.story(&running).await;
    assert_eq!(
        story.types(),
        ["queued", "started", "narration", "started", "progress", "progress", "progress", "complete"]
    );
    let (id, JobEvent::Narration { level: NarrationLevel::Info, message }) = &story.events[2] else {
        panic!()
    };
    assert!(message.contains("run again from its seed"), "{message}");
    assert!(*id > 1000, "ids below {id} may have been told to somebody");
    assert_eq!(images(&story), alone);
    // Whoever heard the first life out goes on where it stood.
    let rest = worker.story_after(&running, 3).await;
    assert_eq!(rest.events[..], story.events[2..]);

    assert_eq!(worker.story(&waiting).await.types()[..2], ["queued", "started"]);
    assert_eq!(worker.router.job(&waiting).unwrap().parameters["seed"], 5);
    assert_eq!(worker.story(&cancelled).await.end, Terminator::Cancelled);
    let begun: Vec<String> = worker.log.lines().into_iter().filter(|line| line.ends_with("begin")).collect();
    assert_eq!(begun, ["gated alone:begin", "waits:begin"], "in the order in which they were accepted");
}

#[tokio::test]
async fn pictures_of_a_waiting_job_survive() {
    let dir = tempfile::tempdir().unwrap();
    let worker = life(dir.path()).await;
    worker.occupy().await;
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::DynamicImage::new_rgb8(48, 32).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    let init_image = ImageData::new(bytes.into_inner());
    let common = seeded("a transform", 3).common().unwrap().clone();
    let waiting =
        worker.accept(Operation::ImageTransform(ImageTransform { common, init_image, strength: 0.5 }));
    let copy = killed(dir.path());

    let worker = life(copy.path()).await;
    worker.gate.open();
    let story = worker.story(&waiting).await;
    assert_eq!(story.end, Terminator::Done, "{:?}", story.events);
    let JobEvent::Started { width, height, .. } = story.events[story.events.len() - 5].1 else { panic!() };
    assert_eq!((width, height), (48, 32));
}

#[tokio::test]
async fn a_worker_that_is_stopped_keeps_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let worker = life(dir.path()).await;
    let running = worker.occupy().await;
    let waiting = worker.submit("waits");
    worker.router.shutdown();
    worker.gate.open();
    let story = worker.story(&waiting).await;
    let JobEvent::Error(detail) = story.last() else { panic!("{story:?}") };
    assert_eq!(detail.code, ErrorCode::ShuttingDown);
    assert!(matches!(story.end, Terminator::Error(_)));
    assert_eq!(worker.router.job(&waiting).unwrap().state, JobState::Queued);
    assert_eq!(worker.story(&running).await.end, Terminator::Done);
    let Worker { router, engine, models, .. } = worker;
    models.stopped().await;
    engine.join().unwrap();
    drop(router);

    let worker = life(dir.path()).await;
    let story = worker.story(&waiting).await;
    assert_eq!(story.types(), ["queued", "started", "progress", "progress", "progress", "complete"]);
}

#[tokio::test]
async fn a_worker_that_cannot_wait_keeps_what_runs() {
    let dir = tempfile::tempdir().unwrap();
    let worker = life(dir.path()).await;
    let running = worker.occupy().await;
    assert_eq!(worker.router.abandon(), 0, "nothing is lost");
    let story = worker.story(&running).await;
    let JobEvent::Error(detail) = story.last() else { panic!("{story:?}") };
    assert_eq!(detail.code, ErrorCode::ShuttingDown);
    let copy = killed(dir.path());
    worker.gate.open();

    let worker = life(copy.path()).await;
    worker.gate.open();
    let again = worker.story(&running).await;
    assert_eq!(again.end, Terminator::Done);
    let told = story.events.last().unwrap().0;
    assert!(again.events.iter().all(|(id, _)| *id != told), "event {told} was told already");
}

#[tokio::test]
async fn a_job_whose_model_is_gone_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let worker = life(dir.path()).await;
    let running = worker.occupy().await;
    let copy = killed(dir.path());

    let mut other = TestGenerator::new();
    other.capabilities.id = "another-model".into();
    other.capabilities.aliases.clear();
    let worker = life_with(copy.path(), other).await;
    let story = worker.story(&running).await;
    let JobEvent::Error(detail) = story.last() else { panic!("{story:?}") };
    assert_eq!(detail.code, ErrorCode::ModelNotFound);
    assert!(worker.log.lines().is_empty());
}

#[tokio::test]
async fn a_deadline_goes_on_while_no_worker_runs() {
    let dir = tempfile::tempdir().unwrap();
    let worker = life(dir.path()).await;
    worker.occupy().await;
    let mut operation = Operation::generate("late");
    operation.common_mut().unwrap().deadline_ms = Some(200);
    let late = worker.accept(operation);
    let copy = killed(dir.path());
    tokio::time::sleep(Duration::from_millis(250)).await;

    let worker = life(copy.path()).await;
    let JobEvent::Error(detail) = worker.story(&late).await.last().clone() else { panic!() };
    assert_eq!(detail.code, ErrorCode::Timeout);
    worker.gate.open();
}

#[tokio::test]
async fn nothing_new_is_taken_before_the_old_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let worker = life(dir.path()).await;
    worker.occupy().await;
    let copy = killed(dir.path());
    let store = Store::open(copy.path()).unwrap();
    let worker = Worker::over(store, TestGenerator::new(), 8, Retention::default()).await;
    let refused = worker.router.submit(Operation::generate("new"));
    assert!(matches!(refused, Err(SubmitError::NotReady(_))), "{refused:?}");
    assert_eq!(worker.router.resume(), 1);
    worker.submit("new");
    worker.gate.open();
}

#[tokio::test]
async fn one_directory_is_one_workers() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let refused = Store::open(dir.path()).unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    let own = format!("(process {})", std::process::id());
    assert!(refused.to_string().ends_with(&own), "{refused}");
    drop(store);
    Store::open(dir.path()).unwrap();
}

#[tokio::test]
async fn retention_counts_what_earlier_lives_left() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention { max_jobs: 2, ..Retention::default() };
    let mut ids: Vec<JobId> = Vec::new();
    for prompt in ["1", "2", "3"] {
        let store = Store::open(dir.path()).unwrap();
        let worker = Worker::over(store, TestGenerator::new(), 8, retention).await;
        let id = worker.submit(prompt);
        worker.story(&id).await;
        ids.push(id);
        let Worker { router, engine, models, .. } = worker;
        router.shutdown();
        models.stopped().await;
        engine.join().unwrap();
        let kept: Vec<JobId> = router.jobs().into_iter().map(|job| job.job_id).collect();
        assert_eq!(kept, ids[ids.len().saturating_sub(2)..]);
    }
}
