//! What the UNet is told by the prompts of a request.

use std::ops::Range;

use candle_core::Tensor;
use sd_models::unet::AddedCondition;

use crate::pipeline::{Parts, Reading, TextConditioning};
use crate::prompt::Texts;
use crate::{Error, GenerationRequest, Result};

/// What a refiner is told of the picture's beauty, of 10, and what it is to keep away from: the reference's defaults.
const AESTHETIC_SCORE: f64 = 6.0;
const NEGATIVE_AESTHETIC_SCORE: f64 = 2.5;

/// What the UNet is conditioned on for some images in a row: the negative half first, if there is guidance.
pub(crate) struct Condition {
    /// Which of the images.
    pub(crate) images: Range<usize>,
    pub(crate) states: Tensor,
    pub(crate) added: Option<AddedCondition>,
    pub(crate) guided: bool,
    /// Whether it is told how beautiful the picture is in place of how large.
    scored: bool,
}

/// What the text encoders make of a request's prompts.
#[derive(Debug, Clone)]
pub struct PromptStates {
    /// `(1, tokens, cross_attention_dim)`.
    pub states: Tensor,
    /// `(1, projection_dim)` where the model has two encoders.
    pub pooled: Option<Tensor>,
    /// The same for the negative prompt, as long as `states`.
    pub negative_states: Tensor,
    /// Likewise.
    pub negative_pooled: Option<Tensor>,
}

/// What one image is conditioned on.
struct Encoded {
    positive: TextConditioning,
    negative: Option<TextConditioning>,
}

impl Encoded {
    fn new(parts: &Parts, request: &GenerationRequest, texts: &Texts<'_>, guided: bool) -> Result<Self> {
        let reading = Reading { clip_skip: request.clip_skip, weighting: request.prompt_weighting };
        let (positive, negative) = parts.text.encode(texts, guided, reading)?;
        Ok(Self { positive, negative })
    }

    /// The tokens that the UNet reads.
    fn length(&self) -> usize {
        self.positive.states.dims()[1]
    }
}

impl PromptStates {
    pub(crate) fn new(parts: &Parts, request: &GenerationRequest) -> Result<Self> {
        check(parts, request)?;
        let texts = Texts::of(request, request.seed);
        let Encoded { positive, negative } = Encoded::new(parts, request, &texts, true)?;
        let negative = negative.unwrap_or_else(|| positive.clone());
        Ok(Self {
            states: positive.states,
            pooled: positive.pooled,
            negative_states: negative.states,
            negative_pooled: negative.pooled,
        })
    }
}

/// Encodes the prompts of all images of a request, each with its wildcards chosen by its own seed. Images in a row whose
/// prompts are equally long come together: an image that were filled up to the length of another would not be the one that
/// its seed gives alone. Also returns notes.
pub(crate) fn conditions(
    parts: &Parts,
    request: &GenerationRequest,
    guided: bool,
    size: [usize; 2],
) -> Result<(Vec<Condition>, Vec<String>)> {
    check(parts, request)?;
    encoded(parts, request, guided, size)
}

/// As [`conditions`], for a model that takes over from the request's own: of two prompts it reads as many as it can.
pub(crate) fn encoded(
    parts: &Parts,
    request: &GenerationRequest,
    guided: bool,
    size: [usize; 2],
) -> Result<(Vec<Condition>, Vec<String>)> {
    let mut notes = Vec::new();
    let mut rows: Vec<Vec<Encoded>> = Vec::new();
    for image in 0..request.num_images {
        let seed = request.seed.wrapping_add(image as u64);
        let texts = Texts::of(request, seed);
        for (field, text) in texts.resolved() {
            notes.push(format!("seed {seed} chose the {field}: {text}"));
        }
        let encoded = Encoded::new(parts, request, &texts, guided)?;
        match rows.last_mut().filter(|row| row[0].length() == encoded.length()) {
            Some(row) => row.push(encoded),
            None => rows.push(vec![encoded]),
        }
    }
    let dropped = rows.iter().flatten().map(|encoded| encoded.positive.dropped_tokens).max().unwrap_or(0);
    if dropped > 0 {
        notes.push(format!(
            "the prompt is too long for the text encoder: its last {dropped} tokens were ignored"
        ));
    }
    let mut first = 0;
    let mut conditions = Vec::new();
    for row in rows {
        let images = first..first + row.len();
        first = images.end;
        conditions.push(Condition::new(&row, images, size, parts.info.refines)?);
    }
    Ok((conditions, notes))
}

/// Refuses a prompt for an encoder that the model does not have.
fn check(parts: &Parts, request: &GenerationRequest) -> Result<()> {
    for (field, text) in [("prompt_2", &request.prompt_2), ("negative_prompt_2", &request.negative_prompt_2)]
    {
        if let Some(text) = text.as_ref().filter(|text| !text.is_empty())
            && parts.text.count() < 2
        {
            let value = format!("`{}`", text.chars().take(40).collect::<String>());
            let limit = "absent: the model has one text encoder".into();
            return Err(Error::InvalidRequest { field, value, limit });
        }
    }
    Ok(())
}

impl Condition {
    fn new(row: &[Encoded], images: Range<usize>, [width, height]: [usize; 2], scored: bool) -> Result<Self> {
        let negative = row.iter().filter_map(|encoded| encoded.negative.as_ref());
        let all: Vec<_> = negative.chain(row.iter().map(|encoded| &encoded.positive)).collect();
        let states: Vec<_> = all.iter().map(|text| &text.states).collect();
        let pooled: Vec<_> = all.iter().filter_map(|text| text.pooled.as_ref()).collect();
        let added = match pooled.is_empty() {
            true => None,
            false => Some(AddedCondition {
                time_ids: vec![Vec::new(); pooled.len()],
                text_embeds: Tensor::cat(&pooled, 0)?,
            }),
        };
        let guided = row.iter().any(|encoded| encoded.negative.is_some());
        let mut condition = Self { images, states: Tensor::cat(&states, 0)?, added, guided, scored };
        condition.resize(width, height);
        Ok(condition)
    }

    /// The half with the prompt.
    pub(crate) fn positive(&self) -> Result<(Tensor, Option<AddedCondition>)> {
        if !self.guided {
            return Ok((self.states.clone(), self.added.clone()));
        }
        let images = self.images.len();
        let half = |tensor: &Tensor| tensor.narrow(0, images, images)?.contiguous();
        let added = self.added.as_ref().map(|added| -> Result<_> {
            let text_embeds = half(&added.text_embeds)?;
            Ok(AddedCondition { time_ids: added.time_ids[images..].to_vec(), text_embeds })
        });
        Ok((half(&self.states)?, added.transpose()?))
    }

    /// Tells the size of the picture, to models that want to know it.
    pub(crate) fn resize(&mut self, width: usize, height: usize) {
        let (width, height) = (width as f64, height as f64);
        let negative = if self.guided { self.images.len() } else { 0 };
        let Some(added) = &mut self.added else { return };
        for (row, ids) in added.time_ids.iter_mut().enumerate() {
            // Original size and crop corner: the picture is whole and as large as it was asked for.
            *ids = vec![height, width, 0.0, 0.0];
            match self.scored {
                true if row < negative => ids.push(NEGATIVE_AESTHETIC_SCORE),
                true => ids.push(AESTHETIC_SCORE),
                false => ids.extend([height, width]),
            }
        }
    }
}
