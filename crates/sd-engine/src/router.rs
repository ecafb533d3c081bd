//! The one front door: every way in goes through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use operations_contract::{
    ErrorCode, FieldError, JobId, JobState, JobView, ModelCapabilities, Operation, ParsedOperation,
};
use serde_json::Value;
use tokio::sync::watch;
use tracing::Span;

use crate::admit::Sender;
use crate::board::{ModelBoard, ModelEntry, ModelStatus};
use crate::idempotency::IdempotencyKey;
use crate::job::{JobUpdates, StoredImage};
use crate::listeners::Listening;
use crate::metrics;
use crate::queue::{RequestQueue, Swap};
use crate::registry::JobRegistry;
use crate::resolve;
use crate::store::{JobPage, JobQuery, StoreError};
use crate::submit::{Accepted, SubmitError, SubmitOptions};
use crate::upscale;

/// Takes operations in, and tells what became of them. Cloning shares it; nothing in it blocks on the engine. What submits,
/// cancels, or asks for jobs waits for the store: async code does that on a blocking thread.
#[derive(Debug, Clone)]
pub struct JobRouter {
    queue: RequestQueue,
    registry: JobRegistry,
    models: ModelBoard,
    closed: Arc<AtomicBool>,
    log_prompts: bool,
    adopt: Option<Adopt>,
}

/// Makes a new span a part of the trace that a `traceparent` names.
pub(crate) type Adopt = fn(&Span, &str);

/// Why a job was not cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CancelError {
    /// There is none, or no more.
    #[error("there is no such job")]
    NotFound,
    /// It is over.
    #[error("the job is already over")]
    AlreadyOver,
}

impl JobRouter {
    /// Takes the sending end of the queue, the registry, and the board on which the engine posts.
    pub fn new(queue: RequestQueue, registry: JobRegistry, models: ModelBoard) -> Self {
        Self { queue, registry, models, closed: Arc::default(), log_prompts: false, adopt: None }
    }

    /// Writes the prompts of accepted jobs into the log, which otherwise holds none.
    #[must_use]
    pub fn with_prompts_logged(self, log_prompts: bool) -> Self {
        Self { log_prompts, ..self }
    }

    /// With something that makes the new span of a job a part of the trace that its request belongs to: whoever exports spans
    /// knows how. It gets the text of [`SubmitOptions::trace_parent`] and ignores what is none.
    #[must_use]
    pub fn with_trace_parents(self, adopt: fn(&Span, &str)) -> Self {
        Self { adopt: Some(adopt), ..self }
    }

    /// Submits an operation.
    ///
    /// Decoding large input images takes a while: async code should call it on a blocking thread.
    pub fn submit(&self, operation: Operation) -> Result<Accepted, SubmitError> {
        let faults = operation.validate().err().map(|invalid| invalid.into_fields()).unwrap_or_default();
        self.submit_with(ParsedOperation { operation: Some(operation), faults }, SubmitOptions::default())
    }

    /// Submits an operation as it came over the wire. All that is wrong with it is told at once, what the contract
    /// has against it as well as what the model has.
    pub fn submit_json(&self, value: &Value) -> Result<Accepted, SubmitError> {
        self.submit_with(Operation::parse(value), SubmitOptions::default())
    }

    /// Submits an operation as it was parsed, with what is known of its sender. The two others end here.
    pub fn submit_with(
        &self,
        parsed: ParsedOperation,
        options: SubmitOptions,
    ) -> Result<Accepted, SubmitError> {
        let operation = parsed.operation.as_ref().map(Operation::kind);
        let admitted = self.admit(parsed, options);
        match (&admitted, operation) {
            (Ok(_), Some(operation)) => metrics::accepted(operation),
            (Err(error), _) => metrics::refused(error.code()),
            (Ok(_), None) => {}
        }
        admitted
    }

    /// Counts a submission that was refused before it could come here: its body was no JSON, say. What is refused here is
    /// counted already.
    pub fn count_refusal(&self, code: ErrorCode) {
        metrics::refused(code);
    }

    /// The story of a job, from the event after `after` on (0: from the beginning).
    pub fn subscribe(&self, id: &JobId, after: u64) -> Option<JobUpdates> {
        let job = self.registry.find(id)?;
        let listening = Listening::to(job, self.registry.clone(), Arc::clone(&self.closed));
        Some(JobUpdates::new(listening, after))
    }

    /// One job.
    pub fn job(&self, id: &JobId) -> Option<JobView> {
        self.registry.view(id)
    }

    /// One job that is not over. Waits for nothing.
    pub fn living(&self, id: &JobId) -> Option<JobView> {
        self.registry.living(id)
    }

    /// All jobs that are remembered, the oldest first.
    pub fn jobs(&self) -> Vec<JobView> {
        self.list(&JobQuery::default()).map(|page| page.jobs).unwrap_or_else(|error| {
            tracing::error!(%error, "the jobs cannot be listed");
            Vec::new()
        })
    }

    /// The jobs that are wanted, page by page.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self, query: &JobQuery) -> Result<JobPage, StoreError> {
        self.registry.list(query)
    }

    /// Forgets jobs that are not to be kept any longer, writes down results that could not be written down before, and
    /// gives room back to the disk. The router does the first two by itself whenever it has something to do; call it from
    /// time to time for the times when it has not.
    pub fn tidy(&self) {
        self.registry.tidy();
        self.registry.shrink();
    }

    /// One image of a finished job, counted from 0.
    pub fn image(&self, id: &JobId, index: usize) -> Option<StoredImage> {
        self.registry.image(id, index)
    }

    /// Cancels a job: a waiting one at once, a running one before its next step. Gives the state that it has now.
    pub fn cancel(&self, id: &JobId) -> Result<JobState, CancelError> {
        self.registry.cancel(id)
    }

    /// Refuses what is new from now on. What runs is finished, what waits ends with `shutting_down`, and then the
    /// engine stops.
    pub fn shutdown(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.queue.stop();
    }

    /// Whether [`shutdown`](Self::shutdown) was called.
    pub fn is_shutting_down(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Ends the stories of all jobs that are not over with `shutting_down`, for a worker that cannot wait any longer. Those of
    /// a store that lasts go on in the next process. A running one is let go before its next step, but whoever follows it is
    /// told at once. Gives how many are lost.
    pub fn abandon(&self) -> usize {
        self.registry.abandon()
    }

    /// What the model is up to.
    pub fn model_status(&self) -> ModelStatus {
        self.models.status()
    }

    /// `Ok` when a job would be taken now, save for a full queue; otherwise why not.
    pub fn readiness(&self) -> Result<Arc<ModelCapabilities>, SubmitError> {
        if self.is_shutting_down() {
            return Err(SubmitError::ShuttingDown);
        }
        let model = self.model()?;
        match self.registry.has_restored() {
            true => Err(SubmitError::NotReady("the jobs of the last run are being taken up".into())),
            false => Ok(model),
        }
    }

    pub(crate) fn model(&self) -> Result<Arc<ModelCapabilities>, SubmitError> {
        match self.models.status() {
            ModelStatus::Ready(model) => Ok(model),
            ModelStatus::Loading => Err(SubmitError::NotReady("the model is loading".into())),
            ModelStatus::Failed(reason) => Err(SubmitError::NotReady(reason)),
            ModelStatus::Stopped => Err(SubmitError::ShuttingDown),
        }
    }

    /// All models of the worker, the default first, and whether they are loaded.
    pub fn models(&self) -> Vec<ModelEntry> {
        self.models.models()
    }

    /// The model that requests call so.
    pub fn find_model(&self, name: &str) -> Option<ModelEntry> {
        self.models.find(name)
    }

    /// Asks for a model to be loaded ahead of its first job: as soon as nothing runs. Gives what is known of it now; what
    /// becomes of it is found on the board.
    pub fn load_model(&self, name: &str) -> Result<ModelEntry, SubmitError> {
        self.swap_model(name, Swap::Load)
    }

    /// Asks for a model to be unloaded: as soon as nothing runs. The next job that needs it loads it again.
    pub fn unload_model(&self, name: &str) -> Result<ModelEntry, SubmitError> {
        self.swap_model(name, Swap::Unload)
    }

    fn swap_model(&self, name: &str, swap: fn(String) -> Swap) -> Result<ModelEntry, SubmitError> {
        self.readiness()?;
        let Some(model) = self.models.find(name) else { return Err(self.no_model(name)) };
        if let Some(reason) = &model.impossible {
            return Err(SubmitError::ModelTooLarge(reason.clone()));
        }
        let asked = self.queue.swap(swap(model.capabilities.id.clone()));
        asked.map(|()| model).map_err(|_| SubmitError::ShuttingDown)
    }

    fn no_model(&self, name: &str) -> SubmitError {
        let ids: Vec<_> = self.models().iter().map(|model| format!("`{}`", model.capabilities.id)).collect();
        SubmitError::ModelNotFound { name: name.to_owned(), there: ids.join(", ") }
    }

    /// How many jobs wait or run, and every change of it.
    pub fn activity(&self) -> watch::Receiver<usize> {
        self.registry.activity().watch()
    }

    /// How many jobs wait, and how many may.
    pub fn queue_usage(&self) -> (usize, usize) {
        (self.queue.waiting(), self.queue.capacity())
    }

    pub(crate) fn queue(&self) -> &RequestQueue {
        &self.queue
    }

    /// Whether prompts may stand in the log.
    pub(crate) fn logs_prompts(&self) -> bool {
        self.log_prompts
    }

    pub(crate) fn adopts(&self) -> Option<Adopt> {
        self.adopt
    }

    pub(crate) fn registry(&self) -> &JobRegistry {
        &self.registry
    }

    fn admit(&self, parsed: ParsedOperation, options: SubmitOptions) -> Result<Accepted, SubmitError> {
        let ParsedOperation { operation, mut faults } = parsed;
        let Some(operation) = operation else { return Err(SubmitError::Invalid(faults)) };
        let told = options.fingerprint.is_some();
        let key = options.idempotency_key.filter(|_| told || faults.is_empty());
        let sender = Sender {
            caller: options.caller,
            key: key.map(|key| IdempotencyKey::of(key, options.fingerprint, &operation)),
            trace_parent: options.trace_parent,
            request_id: options.request_id,
        };
        // Also when the queue is full or the model is gone: the job is there already.
        if let Some(accepted) = self.sent_before(&sender)? {
            return Ok(accepted);
        }
        let model = match self.readiness() {
            Ok(default) => self.model_of(&operation, default),
            Err(_) if !faults.is_empty() => return Err(SubmitError::Invalid(faults)),
            Err(refusal) => return Err(refusal),
        };
        self.may_become_a_job(&operation, &model, &mut faults)?;

        let place = self.queue.reserve().ok_or_else(|| SubmitError::QueueFull {
            capacity: self.queue.capacity(),
            retry_after: self.queue.retry_after(),
        })?;
        self.enqueue(operation, model, place, sender)
    }

    /// The model that an operation names, as far as there is one; else the default.
    pub(crate) fn model_of(
        &self,
        operation: &Operation,
        default: Arc<ModelCapabilities>,
    ) -> Arc<ModelCapabilities> {
        let wanted = match operation {
            // It names a network, which may be another model's than the default's.
            Operation::ImageUpscale(request) => {
                let name = request.model.as_deref();
                let has = |model: &ModelCapabilities| upscale::chosen(name, model).is_some();
                let others =
                    || self.models().into_iter().map(|model| model.capabilities).find(|model| has(model));
                if has(&default) { None } else { others() }
            }
            _ => {
                let name = operation.common().and_then(|common| common.model.as_deref());
                name.and_then(|name| self.models.find(name)).map(|model| model.capabilities)
            }
        };
        wanted.unwrap_or(default)
    }

    /// Whether the worker can do it with this model; if not, all that is wrong.
    pub(crate) fn may_become_a_job(
        &self,
        operation: &Operation,
        model: &ModelCapabilities,
        faults: &mut Vec<FieldError>,
    ) -> Result<(), SubmitError> {
        self.hold_against(operation, model, faults)?;
        match self.models.find(&model.id).and_then(|model| model.impossible) {
            Some(reason) => Err(SubmitError::ModelTooLarge(reason)),
            None => Ok(()),
        }
    }

    /// Tells everything that is wrong in one answer: the contract's faults and the model's.
    fn hold_against(
        &self,
        operation: &Operation,
        model: &ModelCapabilities,
        faults: &mut Vec<FieldError>,
    ) -> Result<(), SubmitError> {
        let wanted = operation.job().model;
        let (other_model, there) = match operation {
            // Where no upscaler is loaded, it is the operation that is beyond the worker.
            Operation::ImageUpscale(_) => match model.upscale_models.first() {
                Some(first) => {
                    (wanted.filter(|name| upscale::chosen(Some(name), model).is_none()), &first.name)
                }
                None => (None, &model.id),
            },
            _ => (wanted.filter(|name| !model.answers_to(name)), &model.id),
        };
        let objections = match other_model {
            Some(name) if faults.is_empty() => {
                return Err(match operation {
                    Operation::ImageUpscale(_) => {
                        SubmitError::ModelNotFound { name: name.to_owned(), there: format!("`{there}`") }
                    }
                    _ => self.no_model(name),
                });
            }
            Some(name) => {
                let message = format!("is not on this worker; there is `{there}`");
                faults.push(FieldError::new("model", message).with_value(name));
                return Err(SubmitError::Invalid(std::mem::take(faults)));
            }
            None => resolve::objections(operation, model),
        };
        let known = |faults: &[FieldError], new: &FieldError| faults.iter().any(|f| f.field == new.field);
        for fault in objections.faults {
            if !known(faults, &fault) {
                faults.push(fault);
            }
        }
        match (faults.is_empty(), objections.unsupported) {
            (true, unsupported) if unsupported.is_empty() => Ok(()),
            (true, unsupported) => Err(SubmitError::Unsupported(unsupported)),
            (false, unsupported) => {
                for fault in unsupported {
                    if !known(faults, &fault) {
                        faults.push(fault);
                    }
                }
                Err(SubmitError::Invalid(std::mem::take(faults)))
            }
        }
    }
}
