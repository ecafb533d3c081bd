//! Continuous batching on a real model: jobs that share forward passes get the bytes that they get alone.

use std::sync::mpsc;

use operations_contract::{ImageData, JobEvent, JobId, ModelCapabilities, Operation, Preview, Terminator};
use sd_engine::{
    GenerationEngine, GenerationTask, Generator, GeneratorError, JobRegistry, JobRouter, ModelBoard,
    PipelineGenerator, RequestQueue, Shape, StepResult,
};
use sd_inference::{LoadOptions, ModelSource, Pipeline};

/// A pipeline that tells how many it advances together, and whose first step waits for a word.
struct Watched {
    pipeline: PipelineGenerator,
    together: mpsc::Sender<usize>,
    go: Option<mpsc::Receiver<()>>,
}

impl Generator for Watched {
    type Active = <PipelineGenerator as Generator>::Active;

    fn capabilities(&self) -> ModelCapabilities {
        self.pipeline.capabilities()
    }

    fn begin(&mut self, task: GenerationTask) -> Result<Self::Active, GeneratorError> {
        self.pipeline.begin(task)
    }

    fn max_active(&self) -> usize {
        self.pipeline.max_active()
    }

    fn has_room(&self, shapes: &[Shape]) -> bool {
        self.pipeline.has_room(shapes)
    }

    fn advance(&mut self, active: &mut [&mut Self::Active]) -> Vec<StepResult> {
        self.together.send(active.len()).unwrap();
        if let Some(go) = self.go.take() {
            go.recv().unwrap();
        }
        self.pipeline.advance(active)
    }
}

struct Worker {
    router: JobRouter,
    together: mpsc::Receiver<usize>,
    go: mpsc::Sender<()>,
}

async fn worker(pipeline: &Pipeline, max_batch: usize) -> Worker {
    let (queue, receiver) = RequestQueue::new(8);
    let models = ModelBoard::new();
    let router = JobRouter::new(queue, JobRegistry::in_memory().unwrap(), models.clone());
    let (advanced, together) = mpsc::channel();
    let (go, wait) = mpsc::channel();
    let pipeline = PipelineGenerator::new(pipeline.clone(), "demo", Vec::new()).with_max_batch(max_batch);
    let pipeline = pipeline.with_max_batch_pixels(128 * 128);
    let generator = Watched { pipeline, together: advanced, go: Some(wait) };
    GenerationEngine::new(generator, receiver, models.clone()).start().unwrap();
    models.settled().await;
    Worker { router, together, go }
}

fn job(prompt: &str, steps: u32, seed: u64) -> Operation {
    let mut operation = Operation::generate(prompt);
    let common = operation.common_mut().unwrap();
    (common.steps, common.seed) = (Some(steps), Some(seed));
    common.output.metadata = false;
    common.preview = Some(Preview { every: 2, ..Preview::default() });
    operation
}

/// The pictures of a job and its previews.
async fn pictures(router: &JobRouter, id: &JobId) -> (Terminator, Vec<ImageData>) {
    let mut updates = router.subscribe(id, 0).unwrap();
    let mut pictures = Vec::new();
    loop {
        match updates.next().await.unwrap() {
            sd_engine::JobUpdate::Event { event: JobEvent::Preview { image, .. }, .. } => {
                pictures.push(image)
            }
            sd_engine::JobUpdate::Event { event: JobEvent::Complete { images, .. }, .. } => {
                pictures.extend(images.into_iter().map(|image| image.image));
            }
            sd_engine::JobUpdate::Event { .. } => {}
            sd_engine::JobUpdate::End(end) => return (end, pictures),
        }
    }
}

#[tokio::test]
async fn jobs_that_share_forward_passes_get_the_bytes_of_each_alone() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo");
    let source = ModelSource::folder(folder).unwrap();
    let pipeline = Pipeline::load(&source, &LoadOptions::default()).unwrap();
    let jobs = || [job("a red circle on grass", 6, 1), job("a blue star", 4, 2)];

    let alone = worker(&pipeline, 1).await;
    alone.go.send(()).unwrap();
    let mut expected = Vec::new();
    for job in jobs() {
        expected.push(pictures(&alone.router, &alone.router.submit(job).unwrap().job_id).await);
    }

    let shared = worker(&pipeline, 3).await;
    let [first, second] = jobs();
    let first = shared.router.submit(first).unwrap().job_id;
    // The others come while the first takes its first step.
    assert_eq!(shared.together.recv().unwrap(), 1);
    let second = shared.router.submit(second).unwrap().job_id;
    let cancelled = shared.router.submit(job("a green house", 150, 3)).unwrap().job_id;
    shared.go.send(()).unwrap();
    let second = pictures(&shared.router, &second).await;
    shared.router.cancel(&cancelled).unwrap();
    assert_eq!(pictures(&shared.router, &cancelled).await.0, Terminator::Cancelled);
    let first = pictures(&shared.router, &first).await;

    assert!(shared.together.try_iter().any(|together| together == 3), "three were advanced together");
    for (shared, alone) in [first, second].iter().zip(&expected) {
        assert_eq!(shared.0, Terminator::Done);
        assert_eq!(shared.1.len(), alone.1.len(), "previews come all the same");
        assert!(shared == alone, "the bytes are those of the job alone");
    }
}

#[tokio::test]
async fn pictures_beyond_the_size_for_which_it_pays_go_alone() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo");
    let source = ModelSource::folder(folder).unwrap();
    let worker = worker(&Pipeline::load(&source, &LoadOptions::default()).unwrap(), 3).await;
    let large = |seed| {
        let mut job = job("a red circle", 2, seed);
        let common = job.common_mut().unwrap();
        (common.width, common.height) = (Some(136), Some(128));
        worker.router.submit(job).unwrap().job_id
    };
    let first = large(1);
    assert_eq!(worker.together.recv().unwrap(), 1);
    let second = large(2);
    worker.go.send(()).unwrap();
    for id in [&first, &second] {
        assert_eq!(pictures(&worker.router, id).await.0, Terminator::Done);
    }
    assert!(worker.together.try_iter().all(|together| together == 1), "no step was shared");
}
