//! Queue, registry and engine, put together.

use std::collections::BTreeMap;

use sd_engine::{
    EngineHandle, GenerationEngine, Generator, JobRegistry, JobRouter, ModelBoard, PartNames,
    PipelineGenerator, RequestQueue, RequestReceiver,
};
use sd_inference::{ControlNet, Lora, Pipeline};

use crate::exit::Failure;
use crate::pool::{PipelineLoader, PoolArgs};

/// A worker whose model may still be loading.
pub(crate) struct Worker {
    pub(crate) router: JobRouter,
    pub(crate) models: ModelBoard,
    receiver: RequestReceiver,
}

impl Worker {
    /// A worker with room for `capacity` waiting jobs, and with the jobs of this registry.
    pub(crate) fn new(capacity: usize, registry: JobRegistry) -> Self {
        let (queue, receiver) = RequestQueue::new(capacity);
        let models = ModelBoard::new();
        let router = JobRouter::new(queue, registry, models.clone());
        Self { router, models, receiver }
    }

    /// Starts the engine with models that it loads itself.
    pub(crate) fn start_pool(self, loader: PipelineLoader, args: &PoolArgs) -> Result<EngineHandle, Failure> {
        GenerationEngine::with_models(loader, self.receiver, self.models)
            .with_policy(args.policy())
            .with_rules(args.rules())
            .start()
            .map_err(|error| Failure::failed(format!("the engine's thread cannot be started: {error}")))
    }

    /// Starts the engine with the loaded model, which requests call `name`, its ControlNets and its adapters by their
    /// names, and what files call that which was loaded beside it.
    pub(crate) fn start(
        self,
        pipeline: Pipeline,
        controlnets: Vec<(String, ControlNet)>,
        loras: BTreeMap<String, Lora>,
        name: &str,
        parts: PartNames,
    ) -> Result<EngineHandle, Failure> {
        let generator = PipelineGenerator::new(pipeline, name, Vec::new()).with_part_names(parts);
        self.start_with(generator.with_controlnets(controlnets).with_loras(loras))
    }

    /// Starts the engine.
    pub(crate) fn start_with<G: Generator>(self, generator: G) -> Result<EngineHandle, Failure> {
        GenerationEngine::new(generator, self.receiver, self.models)
            .start()
            .map_err(|error| Failure::failed(format!("the engine's thread cannot be started: {error}")))
    }
}
