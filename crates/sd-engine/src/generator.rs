//! The seam under the engine: what it needs of a loaded model.

use operations_contract::{ErrorCode, ModelCapabilities};

use crate::picture::Picture;
use crate::prompt_check::PromptCheck;
use crate::task::{GenerationTask, UpscaleTask};
use crate::work::Shape;

/// A loaded model, moved to the engine's thread and used there alone.
///
/// The engine takes up to [`max_active`](Self::max_active) generations in and calls [`advance`](Self::advance) with
/// all of them, again and again; each leaves when it has no more steps. A generator that can run several in one
/// forward pass overrides these two; for all others their defaults advance one generation by one step.
///
/// A panic in any method ends the jobs that it was called for and no others.
pub trait Generator: Send + 'static {
    /// A generation under way.
    type Active: ActiveGeneration;

    /// What the model can do. Requests are checked against this before they become jobs.
    fn capabilities(&self) -> ModelCapabilities;

    /// What tells whether it can read prompts, for requests to be held against before they become jobs: asked once. `None`: it reads
    /// all.
    fn prompt_check(&self) -> Option<PromptCheck> {
        None
    }

    /// Encodes the prompts, prepares noise and conditioning.
    fn begin(&mut self, task: GenerationTask) -> Result<Self::Active, GeneratorError>;

    /// Begins to enlarge a picture; a step is a tile. Called where the capabilities list
    /// [`ImageUpscale`](operations_contract::OperationKind::ImageUpscale).
    fn upscale(&mut self, task: UpscaleTask) -> Result<Self::Active, GeneratorError> {
        Err(GeneratorError::Unsupported(format!("there is no upscaler `{}`", task.model)))
    }

    /// How many generations are advanced together: asked once, when the model is loaded.
    fn max_active(&self) -> usize {
        1
    }

    /// Whether generations of these shapes can be advanced together, and whether it pays: the device's memory suffices for
    /// them.
    fn has_room(&self, shapes: &[Shape]) -> bool {
        let _ = shapes;
        true
    }

    /// Advances each of `active` by one step. The answer has one result for each, in the same order.
    fn advance(&mut self, active: &mut [&mut Self::Active]) -> Vec<StepResult> {
        active.iter_mut().map(|generation| generation.step()).collect()
    }
}

/// What became of one step; `None`: there was none left to do.
pub type StepResult = Result<Option<StepReport>, GeneratorError>;

/// A generation under way. It stays on the engine's thread.
pub trait ActiveGeneration {
    /// Does one denoising step. `None`: all are done.
    fn step(&mut self) -> StepResult;

    /// Decodes one image ahead of [`finish`](Self::finish), so that the job can end between two. False: there is none left, or
    /// all are decoded at once.
    fn decode(&mut self) -> Result<bool, GeneratorError> {
        Ok(false)
    }

    /// Decodes what is not decoded yet, and gives the images.
    fn finish(self) -> Result<GeneratedImages, GeneratorError>;
}

/// A picture on the way. What is left to do for it is done beside the engine's thread, so that the next step does not wait.
pub struct PreviewPicture(Making);

enum Making {
    Soon(Box<dyn FnOnce() -> Result<Picture, GeneratorError> + Send>),
    Decoded(Box<Decoding>),
}

/// Asks again and again whether to go on; `None` once the answer was no.
type Decoding = dyn FnOnce(&mut dyn FnMut() -> bool) -> Result<Option<Picture>, GeneratorError> + Send;

impl PreviewPicture {
    /// A picture that `make` gives, in little time.
    pub fn later(make: impl FnOnce() -> Result<Picture, GeneratorError> + Send + 'static) -> Self {
        Self(Making::Soon(Box::new(make)))
    }

    /// A picture that a network has to decode. It is made in the background of the steps
    /// ([`Background`](sd_inference::Background)), and left out where a newer one of the job comes before it is begun, or
    /// the job ends before it is done.
    ///
    /// `make` asks what it is given again and again: that waits, and says whether the picture is still wanted. If not, it
    /// gives `None`.
    pub fn decoded(
        make: impl FnOnce(&mut dyn FnMut() -> bool) -> Result<Option<Picture>, GeneratorError> + Send + 'static,
    ) -> Self {
        Self(Making::Decoded(Box::new(make)))
    }

    pub(crate) fn must_be_decoded(&self) -> bool {
        matches!(self.0, Making::Decoded(_))
    }

    pub(crate) fn make(self) -> Result<Picture, GeneratorError> {
        let made = self.make_while(&mut || true)?;
        made.ok_or_else(|| GeneratorError::failed("it was given up, though nobody had asked for that"))
    }

    pub(crate) fn make_while(
        self,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Picture>, GeneratorError> {
        match self.0 {
            Making::Soon(make) => make().map(Some),
            Making::Decoded(make) => make(go_on),
        }
    }
}

impl From<Picture> for PreviewPicture {
    fn from(picture: Picture) -> Self {
        Self::later(|| Ok(picture))
    }
}

impl std::fmt::Debug for PreviewPicture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PreviewPicture")
    }
}

/// A step is done.
#[derive(Debug)]
#[non_exhaustive]
pub struct StepReport {
    /// Steps done.
    pub step: u32,
    /// Steps to do in all: less than the task's where a strength shortens the run.
    pub total_steps: u32,
    /// A picture on the way, where the task asks for one after this step. The engine scales it down.
    pub preview: Option<PreviewPicture>,
    /// What a client should know, such as a step that was repeated in f32.
    pub warnings: Vec<String>,
}

impl StepReport {
    /// A step without a preview.
    pub fn new(step: u32, total_steps: u32) -> Self {
        Self { step, total_steps, preview: None, warnings: Vec::new() }
    }
}

/// What comes out.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GeneratedImages {
    /// Image k has the task's seed + k.
    pub images: Vec<Picture>,
    /// Where the time went.
    pub timings: GenerationTimings,
    /// What a client should know.
    pub warnings: Vec<String>,
    /// How they were made beyond what the request says: pairs of name and value, for the files' metadata.
    pub circumstances: Vec<(&'static str, String)>,
    /// For image k what of that holds for it alone; there may be fewer than images.
    pub circumstances_of_each: Vec<Vec<(&'static str, String)>>,
}

impl GeneratedImages {
    /// Images, without timings.
    pub fn new(images: Vec<Picture>) -> Self {
        Self {
            images,
            timings: GenerationTimings::default(),
            warnings: Vec::new(),
            circumstances: Vec::new(),
            circumstances_of_each: Vec::new(),
        }
    }
}

/// Where the time of a generation went, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GenerationTimings {
    /// Encoding the prompts.
    pub text_encode_ms: u64,
    /// Encoding the picture that it starts from.
    pub image_encode_ms: u64,
    /// Denoising, all steps.
    pub denoise_ms: u64,
    /// Decoding the latents.
    pub decode_ms: u64,
}

/// Why a generation ended without images.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GeneratorError {
    /// The model cannot do this, and found out only now.
    #[error("{0}")]
    Unsupported(String),
    /// The device's memory did not suffice.
    #[error("{0}")]
    OutOfMemory(String),
    /// Anything else.
    #[error("{0}")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl GeneratorError {
    /// Wraps whatever a backend complains about.
    pub fn failed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed(source.into())
    }

    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Unsupported(_) => ErrorCode::UnsupportedOperation,
            Self::OutOfMemory(_) => ErrorCode::OutOfMemory,
            Self::Failed(_) => ErrorCode::InferenceFailed,
        }
    }
}
