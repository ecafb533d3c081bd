//! Jobs: the queue, the engine that works it off on one thread, and the registry whose events anyone can follow.
//!
//! Every way in - HTTP, command line, another program - hands an [`Operation`](operations_contract::Operation) to the
//! one [`JobRouter`]. It checks the request against the contract and the loaded model, fills in what was left open,
//! and puts it into the [`RequestQueue`]. A [`GenerationEngine`] takes requests out and advances a [`Generator`]
//! step by step; between steps it looks at cancellations, deadlines and newcomers. What happens becomes events of the
//! job: kept for replay, and told to any number of subscribers.
//!
//! The engine is given its parts and makes none of them:
//!
//! ```
//! use operations_contract::{JobEvent, ModelCapabilities, Operation, OperationKind, Terminator};
//! use sd_engine::{
//!     ActiveGeneration, GeneratedImages, GenerationEngine, GenerationTask, Generator, GeneratorError, JobRegistry,
//!     JobRouter, JobUpdate, ModelBoard, Picture, RequestQueue, StepReport,
//! };
//!
//! /// Draws one grey picture in as many steps as it was asked for.
//! struct Grey;
//! struct Running { task: GenerationTask, step: u32 }
//!
//! impl Generator for Grey {
//!     type Active = Running;
//!     fn capabilities(&self) -> ModelCapabilities {
//!         ModelCapabilities::text_to_image("grey", "none")
//!     }
//!     fn begin(&mut self, task: GenerationTask) -> Result<Running, GeneratorError> {
//!         Ok(Running { task, step: 0 })
//!     }
//! }
//!
//! impl ActiveGeneration for Running {
//!     fn step(&mut self) -> Result<Option<StepReport>, GeneratorError> {
//!         let more = self.step < self.task.steps;
//!         self.step += u32::from(more);
//!         Ok(more.then(|| StepReport::new(self.step, self.task.steps)))
//!     }
//!     fn finish(self) -> Result<GeneratedImages, GeneratorError> {
//!         let picture = Picture::filled(self.task.width, self.task.height, [128; 3]);
//!         Ok(GeneratedImages::new(vec![picture]))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (queue, receiver) = RequestQueue::new(16);
//! let models = ModelBoard::new();
//! let router = JobRouter::new(queue, JobRegistry::in_memory()?, models.clone());
//! let engine = GenerationEngine::new(Grey, receiver, models.clone()).start()?;
//! models.settled().await;
//!
//! let accepted = router.submit(Operation::generate("a red circle on green grass"))?;
//! let mut updates = router.subscribe(&accepted.job_id, 0).ok_or("the job is gone")?;
//! while let Some(update) = updates.next().await {
//!     match update {
//!         JobUpdate::Event { event: JobEvent::Complete { images, .. }, .. } => assert_eq!(images[0].width, 512),
//!         JobUpdate::Event { .. } => {}
//!         JobUpdate::End(end) => assert_eq!(end, Terminator::Done),
//!     }
//! }
//!
//! router.shutdown();
//! engine.join()?;
//! # Ok(()) }
//! ```

mod activity;
mod admit;
mod board;
mod canvas;
mod deadlines;
mod encode;
mod engine;
mod engine_loop;
mod generator;
mod idempotency;
mod images;
mod job;
mod listeners;
mod load;
mod loader;
mod log;
mod made_with;
mod masks;
mod metadata;
mod metrics;
mod pending;
mod picture;
mod pipeline_generator;
mod previews;
mod prompt_check;
mod prompts;
mod queue;
mod registry;
mod resolve;
mod router;
mod running;
mod shelf;
mod spans;
mod store;
mod submit;
mod task;
mod upscale;
mod upscale_generator;
mod waiting;
mod warm_up;
mod work;

pub use board::{BoardChanges, ModelBoard, ModelEntry, ModelStatus};
pub use encode::{EncodeError, encode_image};
pub use engine::{EngineHandle, EngineStopped, GenerationEngine};
pub use generator::{
    ActiveGeneration, GeneratedImages, GenerationTimings, Generator, GeneratorError, PreviewPicture,
    StepReport, StepResult,
};
pub use images::read_picture;
pub use job::{JobUpdate, JobUpdates, StoredImage};
pub use loader::{ModelLoader, ModelMemory, ModelOffer, ModelRules, Only};
pub use made_with::{PartNames, settings};
pub use masks::{inverted_mask, transparent_mask};
pub use metadata::{
    FileTexts, JSON_KEY, PARAMETERS_KEY, Parameters, Reconstructed, read_texts, sampler_label, schedule_label,
};
pub use metrics::{METRICS, Metric, MetricKind};
pub use picture::{Mask, Picture, WrongPixelCount};
pub use pipeline_generator::{
    ActiveJob, ActivePipeline, PipelineGenerator, PipelineNames, pipeline_capabilities,
};
pub use prompt_check::PromptCheck;
pub use queue::{RequestQueue, RequestReceiver};
pub use registry::{JobRegistry, Retention};
pub use router::{CancelError, JobRouter};
pub use store::{JobPage, JobQuery, Order, Store, StoreError};
pub use submit::{Accepted, SubmitError, SubmitOptions};
pub use task::{ControlTask, GenerationTask, Source, UpscaleTask};
pub use upscale_generator::{ActiveUpscale, UpscaleGenerator};
pub use waiting::Policy;
pub use work::Shape;
