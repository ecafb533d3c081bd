//! Whether a model can read the prompts of a request: asked before there is a job, and before the model is loaded.

use std::sync::{Arc, Mutex, PoisonError};

use operations_contract::{Common, FieldError};
use sd_inference::{Error, GenerationRequest, PromptReader};

/// Tells what is wrong with the prompts of a request for one model. Cloning shares it; it is asked on any thread.
#[derive(Clone)]
pub struct PromptCheck(Arc<Check>);

type Check = dyn Fn(&Common) -> Vec<FieldError> + Send + Sync;

impl PromptCheck {
    /// That `check` does. It is given a request in which every value is filled in.
    pub fn new(check: impl Fn(&Common) -> Vec<FieldError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(check))
    }

    /// Of a pipeline whose vocabularies `open` reads when the first request comes. Where they cannot be read nothing is wrong
    /// with the prompts: loading the model tells what is.
    pub fn of_pipeline(
        open: impl Fn() -> sd_inference::Result<PromptReader> + Send + Sync + 'static,
    ) -> Self {
        let opened: Mutex<Option<PromptReader>> = Mutex::default();
        Self::new(move |common| {
            let reader = {
                // What a panicking thread left is whole: a reader is there or not.
                let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
                match &*opened {
                    Some(reader) => Some(reader.clone()),
                    None => open().ok().map(|reader| opened.insert(reader).clone()),
                }
            };
            let faults = reader.map(|reader| reader.faults(&texts(common))).unwrap_or_default();
            faults.into_iter().map(told).collect()
        })
    }

    pub(crate) fn faults(&self, common: &Common) -> Vec<FieldError> {
        (self.0)(common)
    }
}

/// What of a request its texts depend on.
fn texts(common: &Common) -> GenerationRequest {
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    GenerationRequest {
        negative_prompt: Some(common.negative_prompt.clone()).filter(|text| !text.is_empty()),
        prompt_2: filled(&common.prompt_2),
        negative_prompt_2: filled(&common.negative_prompt_2),
        prompt_weighting: common.prompt_weighting == Some(true),
        num_images: common.num_images as usize,
        seed: common.seed.unwrap_or_default(),
        ..GenerationRequest::new(common.prompt.clone())
    }
}

fn told(error: Error) -> FieldError {
    match error {
        Error::InvalidRequest { field, value, limit } => {
            let message = format!("is {value}, but must be {limit}");
            FieldError::new(field, message).with_value(value).with_limit(limit)
        }
        error => FieldError::new("prompt", format!("cannot be read: {error}")),
    }
}

/// The same check, not an equal one.
impl PartialEq for PromptCheck {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::fmt::Debug for PromptCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PromptCheck")
    }
}
