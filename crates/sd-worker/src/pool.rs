//! The models of `sd-worker serve`: read from their files at start, loaded by the engine when a job needs them.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use sd_engine::{
    GeneratorError, ModelLoader, ModelMemory, ModelOffer, ModelRules, PartNames, PipelineGenerator,
    PipelineNames, Policy, PromptCheck, pipeline_capabilities,
};
use sd_inference::machine::{available_memory, parse_bytes};
use sd_inference::{LoadOptions, Lora, MemoryLimit, ModelSource, Pipeline, PromptReader};

use crate::control::ControlNetArgs;
use crate::exit::Failure;
use crate::model_set::ModelSetup;
use crate::{loras, model};

/// How many jobs share a forward pass where nobody says.
const MAX_BATCH: usize = 4;
/// The largest picture for which that pays on the CPU, in pixels: docs/benchmarks.md has the measurements.
const MAX_BATCH_PIXELS_CPU: u64 = 64 * 64;

/// Which models are loaded when, and whose turn it is.
#[derive(Debug, Args)]
pub(crate) struct PoolArgs {
    /// What all loaded models and the work on a picture may take together: bytes, `1.5GB`, `2GiB`. To load another, the
    /// models that were not used for the longest time are unloaded [default: what the machine has left].
    #[arg(long, env = "SD_WORKER_MEMORY_BUDGET", value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) memory_budget: Option<u64>,
    /// Unload a model that was not used for so many seconds; the next job loads it again [default: never].
    #[arg(long, env = "SD_WORKER_IDLE_UNLOAD", value_name = "SECONDS")]
    pub(crate) idle_unload: Option<NonZeroU64>,
    /// How many jobs of one size and model share a forward pass [default: 4, on the CPU only for pictures of
    /// up to 64x64 pixels, where it pays].
    #[arg(long, env = "SD_WORKER_MAX_BATCH", value_name = "JOBS", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) max_batch: Option<u16>,
    /// After how many seconds unserved the jobs of a caller count as of the next higher priority.
    #[arg(long, env = "SD_WORKER_PRIORITY_AGING", value_name = "SECONDS", default_value_t = Policy::default().rise_after.as_secs(),
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) priority_aging: u64,
    /// For how many seconds jobs of the loaded model may overtake a job of another.
    #[arg(long, env = "SD_WORKER_MODEL_AFFINITY", value_name = "SECONDS", default_value_t = Policy::default().patience.as_secs(),
          value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(crate) model_affinity: u64,
    /// Do not take a step on a small picture before the worker says that it is ready.
    #[arg(long, env = "SD_WORKER_NO_WARM_UP")]
    pub(crate) no_warm_up: bool,
}

impl PoolArgs {
    pub(crate) fn policy(&self) -> Policy {
        Policy {
            rise_after: Duration::from_secs(self.priority_aging),
            patience: Duration::from_secs(self.model_affinity),
        }
    }

    pub(crate) fn rules(&self) -> ModelRules {
        ModelRules {
            budget: self.memory_budget,
            idle_unload: self.idle_unload.map(|seconds| Duration::from_secs(seconds.get())),
            warm_up: !self.no_warm_up,
        }
    }
}

/// Loads the pipelines that the flags name.
pub(crate) struct PipelineLoader {
    models: Vec<Settings>,
    max_batch: usize,
    /// The pixels of the largest picture that shares a forward pass.
    max_batch_pixels: u64,
    on_cpu: bool,
}

/// A model with all that belongs to it.
struct Settings {
    name: String,
    source: ModelSource,
    options: LoadOptions,
    lora_dir: Option<PathBuf>,
    nets: ControlNetArgs,
    parts: PartNames,
    offer: ModelOffer,
}

impl PipelineLoader {
    /// Reads what the files of all models say; loads none.
    pub(crate) fn new(setups: &[ModelSetup], pool: &PoolArgs) -> Result<Self, Failure> {
        let mut models: Vec<Settings> = Vec::new();
        for setup in setups {
            let name = setup.id();
            if models.iter().any(|other| other.name == *name) {
                return Err(Failure::refused(format!("model {name}: there are two of this name")));
            }
            // One device for all.
            let options = match models.first() {
                Some(first) => model::options_on(first.options.device.clone(), &setup.args)?,
                None => model::options(&setup.args)?,
            };
            models.push(Settings::new(setup, options)?);
        }
        let on_cpu = models.first().is_none_or(|first| first.options.device.is_cpu());
        let max_batch_pixels = match (pool.max_batch, on_cpu) {
            (None, true) => MAX_BATCH_PIXELS_CPU,
            _ => u64::MAX,
        };
        let max_batch = pool.max_batch.map_or(MAX_BATCH, usize::from);
        Ok(Self { models, max_batch, max_batch_pixels, on_cpu })
    }
}

/// What is known of a model before it is loaded.
fn offer(setup: &ModelSetup, source: &ModelSource, options: &LoadOptions) -> Result<ModelOffer, Failure> {
    let info = Pipeline::describe(source, options)?;
    let names = PipelineNames {
        id: setup.id().to_owned(),
        aliases: Vec::new(),
        controls: setup.nets.controlnet.iter().map(|net| net.name.clone()).collect(),
        // Which of them fit is known when the model is loaded.
        loras: loras::names(setup.args.lora_dir.as_deref())?,
        refiner: setup.part_names().refiner,
    };
    let estimate = Pipeline::estimate_memory(source, options)?;
    let memory = ModelMemory { weights: estimate.weights, workspace: estimate.workspace };
    Ok(ModelOffer { capabilities: pipeline_capabilities(&info, names), memory: Some(memory) })
}

impl Settings {
    fn new(setup: &ModelSetup, options: LoadOptions) -> Result<Self, Failure> {
        let source = model::source(setup.args.name(), &setup.args.place)?;
        Ok(Self {
            name: setup.id().to_owned(),
            offer: offer(setup, &source, &options)?,
            source,
            options,
            lora_dir: setup.args.lora_dir.clone(),
            nets: setup.nets.clone(),
            parts: setup.part_names(),
        })
    }

    fn load(&self) -> Result<PipelineGenerator, GeneratorError> {
        let pipeline = Pipeline::load(&self.source, &self.options)?;
        for note in &pipeline.info().notes {
            tracing::warn!("{note}");
        }
        let failed = |failure: Failure| GeneratorError::failed(failure.message);
        let nets = self.nets.load(&pipeline).map_err(failed)?;
        let loras: BTreeMap<String, Lora> =
            loras::of_folder(self.lora_dir.as_deref(), &pipeline).map_err(failed)?;
        let generator = PipelineGenerator::new(pipeline, &self.name, Vec::new());
        Ok(generator.with_controlnets(nets).with_loras(loras).with_part_names(self.parts.clone()))
    }
}

impl ModelLoader for PipelineLoader {
    type Generator = PipelineGenerator;

    fn offers(&self) -> Vec<ModelOffer> {
        self.models.iter().map(|model| model.offer.clone()).collect()
    }

    fn load(&mut self, id: &str) -> Result<PipelineGenerator, GeneratorError> {
        let model = self.models.iter().find(|model| model.name == id);
        let model = model.ok_or_else(|| GeneratorError::failed(format!("there is no model `{id}`")))?;
        let generator = model.load()?;
        Ok(generator.with_max_batch(self.max_batch).with_max_batch_pixels(self.max_batch_pixels))
    }

    /// Its vocabularies are read from its files when the first request for it comes.
    fn prompt_check(&self, id: &str) -> Option<PromptCheck> {
        let model = self.models.iter().find(|model| model.name == id)?;
        let (source, options) = (model.source.clone(), model.options.clone());
        Some(PromptCheck::of_pipeline(move || PromptReader::open(&source, &options)))
    }

    /// What the machine has left, unless the flags set a limit or none.
    fn available(&self) -> Option<u64> {
        let by_machine = self.models.iter().any(|model| model.options.memory == MemoryLimit::Available);
        available_memory().filter(|_| self.on_cpu && by_machine).map(|memory| memory.available)
    }
}
