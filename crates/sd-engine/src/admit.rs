//! From a checked operation to a job in the queue: new ones, and those of the last process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use operations_contract::{ImageData, JobId, JobState, JobView, ModelCapabilities, Operation};
use serde_json::Value;
use tracing::Span;
use uuid::Uuid;

use crate::idempotency::IdempotencyKey;
use crate::job::{Job, JobSink, Outcome, unix_ms};
use crate::log;
use crate::pending::PendingTask;
use crate::queue::{JobRequest, Place};
use crate::registry::{Admission, Submission, Unfinished};
use crate::resolve::{self, Resolved};
use crate::router::JobRouter;
use crate::running::Described;
use crate::spans;
use crate::store::Known;
use crate::submit::{Accepted, SubmitError};
use crate::task::Task;
use crate::work::Work;

/// Who submits, under which name of their choice, as a part of which trace, and by which request.
pub(crate) struct Sender {
    pub(crate) caller: Option<Arc<str>>,
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) trace_parent: Option<Arc<str>>,
    pub(crate) request_id: Option<Arc<str>>,
}

impl JobRouter {
    /// Takes the jobs up that the last process with this store did not finish: those that waited wait again, those that
    /// ran are run again from their seeds. Those that the model cannot do any more fail, and those that cannot be read. To be called when a model can
    /// serve; until then nothing new is taken. Gives how many go on.
    pub fn resume(&self) -> usize {
        // Without a model nobody can tell what becomes of them: they wait on.
        let Ok(default) = self.model() else { return 0 };
        let mut resumed = 0;
        for unfinished in self.registry().take_restored() {
            let admitted = unfinished.operation.clone().and_then(|operation| {
                let model = self.model_of(&operation, Arc::clone(&default));
                let possible = self.may_become_a_job(&operation, &model, &mut Vec::new());
                possible.map(|()| (operation, model)).map_err(|refusal| refusal.detail())
            });
            match admitted {
                Ok((operation, model)) => resumed += usize::from(self.go_on(unfinished, operation, model)),
                Err(detail) => {
                    let sink = JobSink::new(unfinished.job, self.registry().clone(), Span::none());
                    sink.end(Outcome::Failed(detail));
                }
            }
        }
        self.registry().all_taken_up();
        resumed
    }

    /// False if it was cancelled meanwhile.
    fn go_on(&self, unfinished: Unfinished, operation: Operation, model: Arc<ModelCapabilities>) -> bool {
        let Unfinished { job, journal, has_inputs, caller, .. } = unfinished;
        let view = job.view();
        if view.state != JobState::Queued {
            return false;
        }
        let waited = Duration::from_millis(unix_ms().saturating_sub(view.created_ms));
        let described = Arc::new(Described { operation, parameters: view.parameters, told: None });
        let work = Work::asked(&model.id, &described.operation);
        let task = PendingTask { model, described, journal, has_inputs };
        // They were admitted once: the bound is for what is new.
        let place = self.queue().place_anyway();
        self.send(job, (task, work), caller, waited, place, None).is_ok()
    }

    /// What this sender sent before under the same key, if that is so.
    pub(crate) fn sent_before(&self, sender: &Sender) -> Result<Option<Accepted>, SubmitError> {
        let Some(key) = &sender.key else { return Ok(None) };
        match self.registry().known(sender.caller.as_deref(), key)? {
            Some(Admission::Known(known)) => Ok(Some(repeated(known))),
            Some(Admission::OtherBody(job_id)) => Err(SubmitError::KeyReused { job_id }),
            Some(Admission::New(..)) | None => Ok(None),
        }
    }

    /// Fills in what is open, writes the job down and puts it into the queue.
    pub(crate) fn enqueue(
        &self,
        mut operation: Operation,
        model: Arc<ModelCapabilities>,
        place: Place,
        sender: Sender,
    ) -> Result<Accepted, SubmitError> {
        let inputs: Vec<(String, ImageData)> = operation
            .images_mut()
            .into_iter()
            .filter(|(_, image)| !image.is_empty())
            .map(|(path, image)| (path, image.clone()))
            .collect();
        // The decoded pictures are let go of: they show that the files are good, and are read again when it is their turn.
        let Resolved { task, operation, parameters, notes, told } =
            resolve::resolve(operation, &model, draw_seed).map_err(SubmitError::Invalid)?;
        self.can_read_prompts(&operation, &model)?;
        let seed = task.seed();
        let mut view = queued(&operation, task.model().to_owned(), parameters.clone());
        view.caller = sender.caller.as_deref().map(str::to_owned);
        let work = match &task {
            Task::Upscale(task) => Work::enlarging(&model.id, task),
            Task::Generation(_) => Work::asked(&model.id, &operation),
        };
        drop(task);
        let admission = self.registry().accept(Submission {
            view,
            priority: operation.job().priority,
            caller: sender.caller.as_deref(),
            key: sender.key.as_ref(),
            operation: &operation,
            inputs: &inputs,
            notes,
        })?;
        let (job, journal) = match admission {
            Admission::New(job, journal) => (job, journal),
            Admission::Known(known) => return Ok(repeated(known)),
            Admission::OtherBody(job_id) => return Err(SubmitError::KeyReused { job_id }),
        };
        let described = Arc::new(Described { operation, parameters, told });
        let task = PendingTask { model, described, journal: journal.clone(), has_inputs: !inputs.is_empty() };
        let job_id = job.id.clone();
        let (described, caller) = (Arc::clone(&task.described), sender.caller.clone());
        let (queued, parent) = (Arc::clone(&job), sender.trace_parent.as_deref());
        if self.send(queued, (task, work), sender.caller, Duration::ZERO, place, parent).is_err() {
            self.registry().forget(&job, &journal);
            return Err(SubmitError::ShuttingDown);
        }
        let who = log::Who { caller: caller.as_deref(), request_id: sender.request_id.as_deref() };
        log::accepted(&job_id, who, &described.operation, self.logs_prompts());
        Ok(Accepted { job_id, seed, repeated: false })
    }

    /// Whether the model has room for the prompts of all images. What wildcards choose is known now.
    fn can_read_prompts(&self, operation: &Operation, model: &ModelCapabilities) -> Result<(), SubmitError> {
        let prompts = self.find_model(&model.id).and_then(|model| model.prompts);
        let Some((prompts, common)) = prompts.zip(operation.common()) else { return Ok(()) };
        match prompts.faults(common) {
            faults if faults.is_empty() => Ok(()),
            faults => Err(SubmitError::Invalid(faults)),
        }
    }

    fn send(
        &self,
        job: Arc<Job>,
        (task, work): (PendingTask, Work),
        caller: Option<Arc<str>>,
        waited: Duration,
        place: Place,
        trace_parent: Option<&str>,
    ) -> Result<(), SubmitError> {
        let kind = task.described.operation.kind();
        let span = spans::job(&job.id, kind, &task.model.id, &task.model.device, caller.as_deref());
        if let (Some(adopt), Some(parent)) = (self.adopts(), trace_parent) {
            adopt(&span, parent);
        }
        let fields = task.described.operation.job();
        let (output, priority, now) = (fields.output, fields.priority, Instant::now());
        if fields.cancel_on_disconnect {
            job.listeners.take_the_job_along();
        }
        // Deadlines are told by the clock on the wall: they go on while no worker runs.
        let deadline = fields.deadline_ms.map(|ms| now + Duration::from_millis(ms).saturating_sub(waited));
        if let Some(at) = deadline {
            self.queue().deadlines().watch(at, &job, self.registry());
        }
        let request = JobRequest {
            work,
            output,
            task,
            caller,
            priority,
            accepted: now.checked_sub(waited).unwrap_or(now),
            deadline,
            cancellation: job.cancellation.clone(),
            queued: spans::queued(&span),
            sink: JobSink::new(job, self.registry().clone(), span),
            place,
        };
        self.queue().send(request).map_err(|_| SubmitError::ShuttingDown)
    }
}

fn repeated(Known { job_id, seed }: Known) -> Accepted {
    Accepted { job_id, seed, repeated: true }
}

fn queued(operation: &Operation, model: String, parameters: Value) -> JobView {
    let fields = operation.job();
    JobView {
        job_id: JobId::new(format!("job-{}", Uuid::new_v4())),
        state: JobState::Queued,
        operation: operation.kind(),
        model,
        created_ms: unix_ms(),
        started_ms: None,
        finished_ms: None,
        parameters,
        progress: None,
        images: Vec::new(),
        error: None,
        caller: None,
        hive_id: fields.hive_id.map(str::to_owned),
        worker_id: fields.worker_id.map(str::to_owned),
    }
}

/// 32 random bits: all that torch's CPU generator uses of a seed, and few enough for JavaScript's numbers. They are
/// the last bits of a random UUID, all of which are random.
fn draw_seed() -> u64 {
    Uuid::new_v4().as_bytes()[12..].iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use operations_contract::{ImageUpscale, OperationKind, UpscaleModel};

    use super::*;
    use crate::board::{ModelBoard, ModelStatus};
    use crate::queue::{Message, RequestQueue};
    use crate::registry::JobRegistry;

    /// What a picture has to do is known before its turn: a client that is refused is told how long it takes.
    #[test]
    fn an_upscale_waits_with_the_work_of_its_tiles() {
        let (queue, mut receiver) = RequestQueue::new(1);
        let models = ModelBoard::new();
        models.post(ModelStatus::Ready(Arc::new(ModelCapabilities {
            operations: vec![OperationKind::ImageUpscale],
            upscale_models: vec![UpscaleModel { name: "net".into(), scale: 2, size_multiple: 1 }],
            ..ModelCapabilities::text_to_image("host", "test")
        })));
        let router = JobRouter::new(queue, JobRegistry::in_memory().unwrap(), models);
        let mut picture = std::io::Cursor::new(Vec::new());
        image::DynamicImage::new_rgb8(100, 40).write_to(&mut picture, image::ImageFormat::Png).unwrap();
        let image = ImageData::new(picture.into_inner());
        let request = ImageUpscale { image, tile: 64, margin: 16, ..ImageUpscale::default() };
        router.submit(Operation::ImageUpscale(request)).unwrap();
        let Ok(Message::Request(request)) = receiver.messages.try_recv() else { panic!("no request") };
        // Tiles begin every 32 pixels and are 64 wide; the picture is lower than that.
        assert_eq!(request.work.units, 4.0 * 64.0 * 40.0);
    }
}
