//! The prompts of an operation: what their syntax says is decided by `sd-inference`, alone from text and seed.

use operations_contract::{Common, FieldError};
use sd_inference::prompt::{parse, resolve_wildcards};

/// The prompts of one image, with its wildcards chosen.
pub(crate) struct Resolved {
    pub(crate) prompt: String,
    pub(crate) negative_prompt: String,
    prompt_2: Option<String>,
    negative_prompt_2: Option<String>,
}

impl Resolved {
    /// The fields of the request that hold them; those that it left out are left out.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let [prompt, negative] = [&self.prompt, &self.negative_prompt].map(|text| Some(text.as_str()));
        let fields = [
            ("prompt", prompt),
            ("negative_prompt", negative),
            ("prompt_2", self.prompt_2.as_deref()),
            ("negative_prompt_2", self.negative_prompt_2.as_deref()),
        ];
        fields.into_iter().filter_map(|(field, text)| Some((field, text?)))
    }
}

/// The prompts of the image with this seed.
pub(crate) fn resolved(common: &Common, seed: u64) -> Resolved {
    let resolve = |text: &String| match common.prompt_weighting {
        Some(true) => resolve_wildcards(text, seed),
        _ => text.clone(),
    };
    Resolved {
        prompt: resolve(&common.prompt),
        negative_prompt: resolve(&common.negative_prompt),
        prompt_2: common.prompt_2.as_ref().map(resolve),
        negative_prompt_2: common.negative_prompt_2.as_ref().map(resolve),
    }
}

/// What is wrong with the prompts of a resolved operation: weights out of range, each field told once.
pub(crate) fn faults(common: &Common) -> Vec<FieldError> {
    let mut faults: Vec<FieldError> = Vec::new();
    if common.prompt_weighting != Some(true) {
        return faults;
    }
    let first = common.seed.unwrap_or_default();
    for image in 0..u64::from(common.num_images) {
        for (field, text) in resolved(common, first.wrapping_add(image)).fields() {
            if faults.iter().any(|fault| fault.field == field) {
                continue;
            }
            if let Err(error) = parse(text) {
                let message = format!("is {error}");
                faults.push(FieldError::new(field, message).with_value(text).with_limit(error.limit));
            }
        }
    }
    faults
}
