//! What subscribers are told.

use operations_contract::{
    Common, ImageGeneration, JobEvent, JobState, NarrationLevel, Operation, Preview, Priority, Terminator,
};

use crate::support::{Worker, next};

#[tokio::test]
async fn a_job_tells_its_whole_story() {
    let worker = Worker::start().await;
    let mut operation = Operation::generate("a cat");
    operation.common_mut().unwrap().seed = Some(7);
    let accepted = worker.router.submit(operation).unwrap();
    assert_eq!(accepted.seed, 7);
    assert!(accepted.job_id.as_str().starts_with("job-"));
    let story = worker.story(&accepted.job_id).await;

    assert_eq!(story.types(), ["queued", "started", "progress", "progress", "progress", "complete"]);
    assert_eq!(story.events.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(story.end, Terminator::Done);
    assert_eq!(story.events[0].1, JobEvent::Queued { position: 0 });
    assert_eq!(
        story.events[1].1,
        JobEvent::Started { model: "test-model".into(), seed: 7, width: 64, height: 64, steps: 3 }
    );
    for (step, (_, event)) in (1..).zip(&story.events[2..5]) {
        let JobEvent::Progress { step: told, total_steps, percent, .. } = event else { panic!("{event:?}") };
        assert_eq!((*told, *total_steps), (step, 3));
        assert!((percent - 100.0 * f64::from(step) / 3.0).abs() < 1e-9);
    }
    let JobEvent::Complete { images, timings, .. } = story.last() else { panic!("no images") };
    assert_eq!((images.len(), images[0].seed, images[0].width), (1, 7, 64));
    assert_eq!((timings.text_encode_ms, timings.denoise_ms, timings.decode_ms), (1, 2, 3));
    assert_eq!(timings.image_encode_ms, 4);
}

#[tokio::test]
async fn early_second_and_late_subscribers_get_the_same() {
    let worker = Worker::start().await;
    let id = worker.submit("gated");
    worker.gate.let_through(1);
    let mut early = worker.router.subscribe(&id, 0).unwrap();
    let mut first = next(&mut early).await;
    assert!(first.is_some());
    let opener = worker.gate.clone();
    let (second, third) = tokio::join!(worker.story(&id), async {
        opener.open();
        worker.story(&id).await
    });
    assert_eq!(second, third);
    let late = worker.story(&id).await;
    assert_eq!(late, second);
    let mut count = 0;
    while first.is_some() {
        count += 1;
        first = next(&mut early).await;
    }
    assert_eq!(count, late.events.len() + 1);
}

#[tokio::test]
async fn a_subscriber_resumes_after_an_event() {
    let worker = Worker::start().await;
    let id = worker.submit("a cat");
    let whole = worker.story(&id).await;
    let rest = worker.story_after(&id, 4).await;
    assert_eq!(rest.events, whole.events[4..]);
    let nothing = worker.story_after(&id, 6).await;
    assert_eq!((nothing.events.len(), nothing.end), (0, Terminator::Done));
    assert_eq!(worker.story_after(&id, u64::MAX).await.events.len(), 0);
}

#[tokio::test]
async fn a_dropped_subscriber_disturbs_nobody() {
    let worker = Worker::start().await;
    let id = worker.submit("gated");
    drop(worker.router.subscribe(&id, 0));
    worker.gate.open();
    assert_eq!(worker.story(&id).await.end, Terminator::Done);
}

#[tokio::test]
async fn jobs_run_one_after_the_other() {
    let worker = Worker::start().await;
    let (a, b) = (worker.submit("a"), worker.submit("b"));
    worker.story(&b).await;
    worker.story(&a).await;
    let expected = ["a:begin", "a:1", "a:2", "a:3", "a:finish", "b:begin", "b:1", "b:2", "b:3", "b:finish"];
    assert_eq!(worker.log.lines(), expected);
}

#[tokio::test]
async fn priority_goes_before_age() {
    let worker = Worker::start().await;
    let first = worker.occupy().await;
    let submit = |prompt: &str, priority| {
        let common = Common { prompt: prompt.into(), priority, ..Common::default() };
        worker.accept(Operation::ImageGeneration(ImageGeneration { common }))
    };
    let low = submit("low", Priority::Low);
    let normal = submit("normal", Priority::Normal);
    let high = submit("high", Priority::High);
    let later = submit("high 2", Priority::High);
    worker.gate.open();
    for (id, position) in [(&low, 0), (&normal, 0), (&high, 0), (&later, 1)] {
        assert_eq!(worker.story(id).await.events[0].1, JobEvent::Queued { position });
    }
    worker.story(&first).await;
    let begun: Vec<String> = worker.log.lines().into_iter().filter(|line| line.ends_with("begin")).collect();
    assert_eq!(begun[1..], ["high:begin", "high 2:begin", "normal:begin", "low:begin"]);
}

#[tokio::test]
async fn previews_are_scaled_to_what_was_asked_for() {
    let worker = Worker::start().await;
    let mut operation = Operation::generate("a cat");
    operation.common_mut().unwrap().preview = Some(Preview { every: 2, max_side: 32, ..Preview::default() });
    let story = worker.story(&worker.accept(operation)).await;
    let previews: Vec<usize> =
        (0..story.events.len()).filter(|index| story.types()[*index] == "preview").collect();
    // It comes after its own step; it is made beside the next one.
    assert!(matches!(previews[..], [4] | [5]) && story.types().len() == 7, "{:?}", story.types());
    let JobEvent::Preview { step, image, .. } = &story.events[previews[0]].1 else { panic!("no preview") };
    let picture = image::load_from_memory(image.bytes()).unwrap();
    assert_eq!((*step, picture.width(), picture.height()), (2, 32, 32));
}

#[tokio::test]
async fn warnings_of_the_generator_become_narrations() {
    let worker = Worker::start().await;
    let story = worker.story(&worker.submit("warn")).await;
    let message = "the step was repeated in f32".to_owned();
    assert_eq!(story.events[2].1, JobEvent::Narration { level: NarrationLevel::Warn, message });
}

#[tokio::test]
async fn a_job_shows_where_it_stands() {
    let worker = Worker::start().await;
    let running = worker.occupy().await;
    let mut operation = Operation::generate("waits");
    operation.common_mut().unwrap().hive_id = Some("hive-7".into());
    let waiting = worker.accept(operation);
    let view = worker.router.job(&waiting).unwrap();
    assert_eq!((view.state, view.started_ms, view.finished_ms), (JobState::Queued, None, None));
    assert_eq!(view.hive_id.as_deref(), Some("hive-7"));
    assert_eq!(view.parameters["steps"], 3, "the model's own value is told");
    assert_eq!(worker.router.job(&running).unwrap().state, JobState::Running);
    assert_eq!(worker.router.queue_usage(), (1, 8));

    worker.gate.open();
    worker.story(&waiting).await;
    let view = worker.router.job(&waiting).unwrap();
    assert_eq!(view.state, JobState::Completed);
    assert!(view.created_ms <= view.started_ms.unwrap() && view.started_ms <= view.finished_ms);
    assert_eq!(view.progress.unwrap().percent, 100.0);
    assert_eq!((view.images.len(), view.images[0].width), (1, 64));
    let ids: Vec<_> = worker.router.jobs().into_iter().map(|job| job.job_id).collect();
    assert_eq!(ids, [running, waiting]);
}

#[tokio::test]
async fn a_drawn_seed_is_reported_everywhere() {
    let worker = Worker::start().await;
    let accepted = worker.router.submit(Operation::generate("a cat")).unwrap();
    let story = worker.story(&accepted.job_id).await;
    let JobEvent::Started { seed, .. } = story.events[1].1 else { panic!("not started") };
    assert_eq!(seed, accepted.seed);
    assert_eq!(worker.router.job(&accepted.job_id).unwrap().parameters["seed"], seed);
    let other = worker.router.submit(Operation::generate("a cat")).unwrap();
    assert_ne!(other.seed, accepted.seed);
}
