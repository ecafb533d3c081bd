//! The texts of one image.

use std::borrow::Cow;

use super::resolve_wildcards;
use crate::GenerationRequest;

/// A request's field and its text.
pub(crate) type Field<'a> = (&'static str, Cow<'a, str>);

/// What the encoders of a model read for one image, wildcards chosen: for each encoder a field of the request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Texts<'a> {
    pub(crate) positive: [Field<'a>; 2],
    /// `None`: the request has no negative prompt at all.
    pub(crate) negative: Option<[Field<'a>; 2]>,
}

impl<'a> Texts<'a> {
    /// The texts of the image with this seed. As in the reference, a second prompt that is missing or empty is the same
    /// as the first.
    pub(crate) fn of(request: &'a GenerationRequest, seed: u64) -> Self {
        let resolved = |text: &'a str| {
            if !request.prompt_weighting || !text.contains('{') {
                return Cow::Borrowed(text);
            }
            Some(resolve_wildcards(text, seed)).filter(|found| found != text).map_or(text.into(), Cow::Owned)
        };
        let pair = |names: [&'static str; 2], first: &'a str, second: Option<&'a str>| {
            let second = match second {
                Some(text) => (names[1], resolved(text)),
                None => (names[0], resolved(first)),
            };
            [(names[0], resolved(first)), second]
        };
        let filled = |text: &'a Option<String>| text.as_deref().filter(|text| !text.is_empty());
        let (negative, negative_2) = (request.negative_prompt.as_deref(), filled(&request.negative_prompt_2));
        Self {
            positive: pair(["prompt", "prompt_2"], &request.prompt, filled(&request.prompt_2)),
            negative: (negative.is_some() || negative_2.is_some()).then(|| {
                pair(["negative_prompt", "negative_prompt_2"], negative.unwrap_or_default(), negative_2)
            }),
        }
    }

    /// The texts that wildcards have changed.
    pub(crate) fn resolved(&self) -> Vec<&Field<'a>> {
        let all = self.positive.iter().chain(self.negative.iter().flatten());
        let mut changed: Vec<&Field<'a>> = Vec::new();
        for field in all.filter(|(_, text)| matches!(text, Cow::Owned(_))) {
            if !changed.iter().any(|(name, _)| *name == field.0) {
                changed.push(field);
            }
        }
        changed
    }
}
