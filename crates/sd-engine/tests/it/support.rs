//! A worker without HTTP.

use std::time::Duration;

use operations_contract::{JobEvent, JobId, Operation, Terminator};
use sd_engine::{
    EngineHandle, GenerationEngine, JobRegistry, JobRouter, JobUpdate, JobUpdates, ModelBoard, RequestQueue,
    Retention, Store,
};

use crate::generator::{Gate, Log, TestGenerator};

pub(crate) struct Worker {
    pub(crate) router: JobRouter,
    pub(crate) models: ModelBoard,
    pub(crate) engine: EngineHandle,
    pub(crate) gate: Gate,
    pub(crate) network: Gate,
    pub(crate) log: Log,
}

impl Worker {
    pub(crate) async fn start() -> Self {
        Self::with(TestGenerator::new(), 8, Retention::default()).await
    }

    pub(crate) async fn with(generator: TestGenerator, capacity: usize, retention: Retention) -> Self {
        Self::over(Store::in_memory().unwrap(), generator, capacity, retention).await
    }

    /// A worker over the jobs of a store. Those of the last process are not resumed.
    pub(crate) async fn over(
        store: Store,
        generator: TestGenerator,
        capacity: usize,
        retention: Retention,
    ) -> Self {
        let (queue, receiver) = RequestQueue::new(capacity);
        let models = ModelBoard::new();
        let registry = JobRegistry::new(store, retention).unwrap();
        let router = JobRouter::new(queue, registry, models.clone());
        let TestGenerator { gate, network, log, .. } = generator.clone();
        let engine = GenerationEngine::new(generator, receiver, models.clone()).start().unwrap();
        models.settled().await;
        Self { router, models, engine, gate, network, log }
    }

    /// Submits a generation that must be accepted.
    pub(crate) fn submit(&self, prompt: &str) -> JobId {
        self.accept(Operation::generate(prompt))
    }

    pub(crate) fn accept(&self, operation: Operation) -> JobId {
        self.router.submit(operation).expect("must be accepted").job_id
    }

    /// Submits a gated generation and waits until the engine is in the middle of its first step.
    pub(crate) async fn occupy(&self) -> JobId {
        let id = self.submit("gated occupation");
        self.gate.reached().await;
        id
    }

    /// The whole story of a job.
    pub(crate) async fn story(&self, id: &JobId) -> Story {
        self.story_after(id, 0).await
    }

    pub(crate) async fn story_after(&self, id: &JobId, after: u64) -> Story {
        let mut updates = self.router.subscribe(id, after).expect("the job must be known");
        let mut events = Vec::new();
        loop {
            match next(&mut updates).await.expect("the story must end with a terminator") {
                JobUpdate::Event { id, event } => events.push((id, event)),
                JobUpdate::End(end) => {
                    assert_eq!(next(&mut updates).await, None, "nothing follows the end");
                    return Story { events, end };
                }
            }
        }
    }
}

pub(crate) async fn next(updates: &mut JobUpdates) -> Option<JobUpdate> {
    tokio::time::timeout(Duration::from_secs(10), updates.next()).await.expect("must not hang")
}

#[derive(Debug, PartialEq)]
pub(crate) struct Story {
    pub(crate) events: Vec<(u64, JobEvent)>,
    pub(crate) end: Terminator,
}

impl Story {
    /// The types of the events, in order.
    pub(crate) fn types(&self) -> Vec<&'static str> {
        let name = |(_, event): &(u64, JobEvent)| match event {
            JobEvent::Queued { .. } => "queued",
            JobEvent::Started { .. } => "started",
            JobEvent::Progress { .. } => "progress",
            JobEvent::Preview { .. } => "preview",
            JobEvent::Narration { .. } => "narration",
            JobEvent::Complete { .. } => "complete",
            JobEvent::Error(_) => "error",
            _ => "other",
        };
        self.events.iter().map(name).collect()
    }

    pub(crate) fn last(&self) -> &JobEvent {
        &self.events.last().unwrap().1
    }
}
