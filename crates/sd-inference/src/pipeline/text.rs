//! Prompts to what the UNet is conditioned on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{D, DType, Device, Tensor};
use sd_models::Layers;
use sd_models::clip::{ClipOutput, ClipTextConfig, ClipTextModel, Replacement};
use sd_models::lora::Patch;

use super::load::{Opened, TEXT_STEM};
use super::prompt_reader::PromptReader;
use super::tokens::Tokens;
use crate::prompt::{self, Cache, Chunk, Embeddings, Fit, Texts};
use crate::{Error, Result};

/// How many texts are remembered, and how many bytes their states may take together.
const CACHED_TEXTS: usize = 64;
const CACHED_BYTES: usize = 64 << 20;

/// One or two CLIP encoders with their tokenizers.
pub(crate) struct TextEncoders {
    encoders: Vec<TextEncoder>,
    embeddings: Arc<Embeddings>,
    manner: Manner,
    cache: Mutex<Cache<TextKey, EncodedText>>,
}

/// How a family uses its encoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manner {
    /// As SDXL: the states before the last layer, without a norm, and the last encoder's pooled state.
    pub(super) pooled: bool,
    /// Whether no negative prompt means zeros instead of an empty one.
    pub(super) force_zeros_for_empty_prompt: bool,
}

struct TextEncoder {
    /// Where the model has it, such as `text_encoder`.
    folder: &'static str,
    tokens: Arc<Tokens>,
    model: ClipTextModel,
}

/// Text encoders that are about to be loaded with other adapters.
pub(super) struct TextChange {
    encoders: Vec<(&'static str, Arc<Tokens>, ClipTextConfig, Layers)>,
    embeddings: Arc<Embeddings>,
    manner: Manner,
}

/// The states that a prompt gives.
#[derive(Debug, Clone)]
pub(crate) struct TextConditioning {
    /// `(1, tokens, cross_attention_dim)`.
    pub(crate) states: Tensor,
    /// `(1, projection_dim)` in the manner of SDXL.
    pub(crate) pooled: Option<Tensor>,
    /// Tokens of the prompt that the encoder had no room for.
    pub(crate) dropped_tokens: usize,
}

/// What text encoders are, as far as their configurations tell.
pub(super) struct TextInfo {
    /// The width of the states of each.
    widths: Vec<usize>,
    pub(super) max_clip_skip: usize,
    /// The width of the pooled state, where the model uses it.
    pub(super) pooled_width: Option<usize>,
    /// The names of the textual inversions that prompts may use.
    pub(super) embeddings: Vec<String>,
    /// What is to be told of those that were left out.
    pub(super) notes: Vec<String>,
}

impl TextInfo {
    /// Reads configurations and textual inversions, but neither vocabularies nor weights.
    pub(super) fn read(opened: &Opened<'_>, manner: Manner) -> Result<Self> {
        let mut configs: Vec<ClipTextConfig> = Vec::new();
        for folder in folders(opened) {
            configs.push(config(opened, folder)?);
        }
        let widths: Vec<usize> = configs.iter().map(|config| config.hidden_size).collect();
        let options = opened.options;
        let fit = Fit {
            widths: &widths,
            // Beside start and end.
            room: configs
                .iter()
                .map(|config| config.max_position_embeddings)
                .min()
                .unwrap_or(0)
                .saturating_sub(2),
            device: &Device::Cpu,
            dtype: DType::F32,
        };
        let (embeddings, notes) =
            Embeddings::load(&options.embeddings, options.embeddings_dir.as_deref(), &fit)?;
        Ok(Self {
            max_clip_skip: max_clip_skip(configs.iter(), manner),
            pooled_width: configs.last().filter(|_| manner.pooled).map(pooled_width),
            embeddings: embeddings.names().map(str::to_owned).collect(),
            notes,
            widths,
        })
    }

    /// How many encoders there are.
    pub(super) fn count(&self) -> usize {
        self.widths.len()
    }

    /// The width of the states.
    pub(super) fn width(&self) -> usize {
        self.widths.iter().sum()
    }
}

/// The most layers that `clip_skip` can leave out of all of these encoders.
fn max_clip_skip<'a>(configs: impl Iterator<Item = &'a ClipTextConfig>, manner: Manner) -> usize {
    let unused = if manner.pooled { 2 } else { 1 };
    configs.map(|config| config.num_hidden_layers).min().unwrap_or(1).saturating_sub(unused)
}

/// The width of the pooled state.
fn pooled_width(config: &ClipTextConfig) -> usize {
    if config.has_projection() { config.projection_dim } else { config.hidden_size }
}

/// Where a model has its encoders. The refiner of SDXL has only the second.
pub(super) fn folders(opened: &Opened<'_>) -> Vec<&'static str> {
    let [first, second] = ["text_encoder", "text_encoder_2"];
    let has = |folder: &str| opened.contains(&format!("{folder}/config.json"));
    match (has(first), has(second)) {
        (_, false) => vec![first],
        (true, true) => vec![first, second],
        (false, true) => vec![second],
    }
}

/// The checked configuration of the encoder in `folder`.
pub(super) fn config(opened: &Opened<'_>, folder: &str) -> Result<ClipTextConfig> {
    let file = format!("{folder}/config.json");
    let config: ClipTextConfig = opened.json(&file)?;
    config.check(&opened.describe(&file))?;
    Ok(config)
}

/// How texts are to be read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Reading {
    /// How many more of the encoder's last layers are left out.
    pub(crate) clip_skip: usize,
    /// Whether there are weights, breaks and chunks; otherwise the text is taken as it is, and cut.
    pub(crate) weighting: bool,
}

/// Everything that the states of a text depend on.
#[derive(Debug, PartialEq)]
struct TextKey {
    encoder: usize,
    text: String,
    reading: Reading,
}

/// The states of a text from one encoder.
#[derive(Debug, Clone)]
struct EncodedText {
    /// `(1, tokens, hidden_size)`, as many chunks as the text needs.
    states: Tensor,
    /// `(1, projection_dim)`, of the first chunk.
    pooled: Tensor,
    dropped: usize,
}

impl TextEncoders {
    /// Also returns notes about textual inversions that were left out.
    pub(super) fn load(opened: &Opened<'_>, manner: Manner) -> Result<(Self, Vec<String>)> {
        let mut encoders = Vec::new();
        for folder in folders(opened) {
            encoders.push(TextEncoder::load(opened, folder)?);
        }
        let widths: Vec<usize> = encoders.iter().map(TextEncoder::width).collect();
        let options = opened.options;
        let fit = Fit {
            widths: &widths,
            room: encoders.iter().map(|encoder| encoder.tokens.room()).min().unwrap_or(0),
            device: &options.device,
            dtype: encoders[0].model.dtype(),
        };
        let (embeddings, notes) =
            Embeddings::load(&options.embeddings, options.embeddings_dir.as_deref(), &fit)?;
        let cache = Mutex::new(Cache::new(CACHED_TEXTS, CACHED_BYTES));
        let embeddings = Arc::new(embeddings);
        Ok((Self { encoders, embeddings, manner, cache }, notes))
    }

    /// The models, in their order.
    pub(super) fn models(&self) -> impl Iterator<Item = &ClipTextModel> {
        self.encoders.iter().map(|encoder| &encoder.model)
    }

    /// What loads them with `patches`, one for each encoder or fewer; `None` where that is how they are.
    pub(super) fn change(&self, patches: &[Patch]) -> Option<TextChange> {
        if self.with(patches).all(|(encoder, patch)| encoder.model.layers().have(&patch)) {
            return None;
        }
        let change = |(encoder, patch): (&TextEncoder, Patch)| {
            let TextEncoder { folder, tokens, model } = encoder;
            (*folder, Arc::clone(tokens), model.config().clone(), model.layers().with(patch))
        };
        let encoders = self.with(patches).map(change).collect();
        Some(TextChange { encoders, embeddings: Arc::clone(&self.embeddings), manner: self.manner })
    }

    /// The values of all weights that `patches` change.
    pub(super) fn changed_values(&self, patches: &[Patch]) -> u64 {
        self.with(patches).map(|(encoder, patch)| encoder.model.layers().changed_values(&patch)).sum()
    }

    fn with(&self, patches: &[Patch]) -> impl Iterator<Item = (&TextEncoder, Patch)> {
        let patches = patches.iter().cloned().chain(std::iter::repeat_with(Patch::default));
        self.encoders.iter().zip(patches)
    }

    /// What they are.
    pub(super) fn info(&self) -> TextInfo {
        TextInfo {
            widths: self.encoders.iter().map(TextEncoder::width).collect(),
            max_clip_skip: self.max_clip_skip(),
            pooled_width: self
                .encoders
                .last()
                .filter(|_| self.manner.pooled)
                .map(|encoder| pooled_width(encoder.model.config())),
            embeddings: self.embeddings(),
            notes: Vec::new(),
        }
    }

    /// How many encoders there are.
    pub(crate) fn count(&self) -> usize {
        self.encoders.len()
    }

    /// What of them reads prompts, without their weights.
    pub(super) fn reader(&self) -> PromptReader {
        let encoders = self.encoders.iter().map(|encoder| Arc::clone(&encoder.tokens)).collect();
        PromptReader::new(encoders, Arc::clone(&self.embeddings))
    }

    /// The names of the textual inversions that prompts may use.
    pub(crate) fn embeddings(&self) -> Vec<String> {
        self.embeddings.names().map(str::to_owned).collect()
    }

    /// The most layers that `clip_skip` can leave out.
    pub(crate) fn max_clip_skip(&self) -> usize {
        max_clip_skip(self.encoders.iter().map(|encoder| encoder.model.config()), self.manner)
    }

    /// Forgets all encoded texts. To be called when the encoders' weights change.
    pub(crate) fn clear_cache(&self) {
        self.cache().clear();
    }

    /// Encodes the texts of one image: what it should show, and with guidance what it is pushed away from. Both come out
    /// equally long.
    ///
    /// The states are the encoder's last after the final norm; in the [`Manner`] of SDXL the last but one of all
    /// encoders, side by side, and the last encoder's pooled state.
    ///
    /// Layers are left out for what the image should show only, not for what it is pushed away from, as in the
    /// references: `StableDiffusionPipeline.encode_prompt`, `StableDiffusionXLPipeline.encode_prompt`.
    pub(crate) fn encode(
        &self,
        texts: &Texts<'_>,
        guided: bool,
        reading: Reading,
    ) -> Result<(TextConditioning, Option<TextConditioning>)> {
        let encode = |fields: &[prompt::Field<'_>], reading: Reading| -> Result<Vec<EncodedText>> {
            let each = fields.iter().take(self.count()).enumerate();
            each.map(|(encoder, (field, text))| self.encode_text(encoder, field, text, reading)).collect()
        };
        let whole = Reading { clip_skip: 0, ..reading };
        let positive = encode(&texts.positive, reading)?;
        // Without a text, some models want zeros instead of an empty prompt.
        let Manner { pooled, force_zeros_for_empty_prompt } = self.manner;
        let zeros = texts.negative.is_none() && force_zeros_for_empty_prompt && pooled;
        let negative = match &texts.negative {
            _ if !guided || zeros => None,
            Some(fields) => Some(encode(fields, whole)?),
            None => Some(encode(&[("negative_prompt", "".into()), ("negative_prompt", "".into())], whole)?),
        };
        let mut longest = 0;
        for text in positive.iter().chain(negative.iter().flatten()) {
            longest = longest.max(text.states.dim(1)?);
        }
        let positive = self.join(positive, longest, reading)?;
        let negative = match negative {
            Some(negative) => Some(self.join(negative, longest, whole)?),
            None if guided => Some(TextConditioning {
                states: positive.states.zeros_like()?,
                pooled: positive.pooled.as_ref().map(Tensor::zeros_like).transpose()?,
                dropped_tokens: 0,
            }),
            None => None,
        };
        Ok((positive, negative))
    }

    /// Puts what the encoders gave side by side, each filled up with empty chunks to `length` tokens.
    fn join(&self, texts: Vec<EncodedText>, length: usize, reading: Reading) -> Result<TextConditioning> {
        let mut joined = Vec::new();
        for (encoder, text) in texts.iter().enumerate() {
            let mut chunks = vec![text.states.clone()];
            let mut missing = length - text.states.dim(1)?;
            while missing > 0 {
                let empty = self.encode_text(encoder, "prompt", "", reading)?.states;
                missing = missing.saturating_sub(empty.dim(1)?);
                chunks.push(empty);
            }
            joined.push(Tensor::cat(&chunks, 1)?);
        }
        Ok(TextConditioning {
            states: Tensor::cat(&joined, D::Minus1)?,
            pooled: texts.last().filter(|_| self.manner.pooled).map(|text| text.pooled.clone()),
            dropped_tokens: texts.iter().map(|text| text.dropped).max().unwrap_or(0),
        })
    }

    /// The states of `text` from one encoder, remembered or computed. `field` names it in errors.
    fn encode_text(
        &self,
        encoder: usize,
        field: &'static str,
        text: &str,
        reading: Reading,
    ) -> Result<EncodedText> {
        let key = TextKey { encoder, text: text.to_owned(), reading };
        if let Some(found) = self.cache().find(&key) {
            return Ok(found);
        }
        let tokens = &self.encoders[encoder].tokens;
        let (chunks, dropped) = tokens.laid(&self.embeddings, field, text, reading.weighting)?;
        let encoded = chunks.iter().map(|chunk| self.encode_chunk(encoder, chunk, reading.clip_skip));
        let (states, mut pooled): (Vec<_>, Vec<_>) = encoded.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        let states = Tensor::cat(&states, 1)?;
        let bytes = states.elem_count() * states.dtype().size_in_bytes();
        let encoded = EncodedText { states, pooled: pooled.swap_remove(0), dropped };
        self.cache().keep(key, encoded.clone(), bytes);
        Ok(encoded)
    }

    /// The weighted states and the pooled state of one chunk.
    fn encode_chunk(&self, encoder: usize, chunk: &Chunk, clip_skip: usize) -> Result<(Tensor, Tensor)> {
        let TextEncoder { tokens, model, .. } = &self.encoders[encoder];
        let mut replacements = Vec::new();
        for &(position, which, count) in &chunk.embeddings {
            let vectors = self.embeddings.vectors(which, encoder).narrow(0, 0, count)?;
            // The start token stands before the chunk.
            replacements.push(Replacement { row: 0, position: position + 1, vectors });
        }
        let output = model.forward_replaced(&[tokens.frame(chunk.ids.clone())], &replacements)?;
        let states = match (self.manner.pooled, clip_skip) {
            (false, 0) => output.last_hidden_state.clone(),
            (false, skip) => model.final_layer_norm(from_end(&output, skip))?,
            (true, skip) => from_end(&output, skip + 1).clone(),
        };
        Ok((weighted(&states, &chunk.weights)?, output.pooled))
    }

    fn cache(&self) -> MutexGuard<'_, Cache<TextKey, EncodedText>> {
        // What a panicking thread left is whole: entries come and go at once.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Multiplies the state of each token by its weight, then all by one number, so that their mean is what it was. The first
/// weight is that of the second state: start, end and padding weigh 1.
///
/// That is what AUTOMATIC1111's web UI does in its mode "Original".
fn weighted(states: &Tensor, weights: &[f32]) -> Result<Tensor> {
    if weights.iter().all(|weight| *weight == 1.0) {
        return Ok(states.clone());
    }
    let shape = states.dims3()?;
    let mut values = states.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let sum = |values: &[f32]| values.iter().copied().map(f64::from).sum::<f64>();
    let before = sum(&values);
    for (state, weight) in values.chunks_exact_mut(shape.2).skip(1).zip(weights) {
        state.iter_mut().for_each(|value| *value *= weight);
    }
    let restore = (before / sum(&values)) as f32;
    values.iter_mut().for_each(|value| *value *= restore);
    if values.iter().any(|value| !value.is_finite()) {
        return Err(Error::NotFinite { stage: "weighting the prompt".into() });
    }
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(states.dtype())?.to_device(states.device())?)
}

impl TextChange {
    pub(super) fn load(self, opened: &Opened<'_>) -> Result<TextEncoders> {
        let load = |(folder, tokens, config, layers)| {
            let weights = opened.weights(folder, TEXT_STEM)?.with_layers(layers)?;
            let file = opened.describe(&format!("{folder}/config.json"));
            let model = ClipTextModel::load(&weights, config, &file)?;
            Ok(TextEncoder { folder, tokens, model })
        };
        let encoders = self.encoders.into_iter().map(load).collect::<Result<_>>()?;
        let Self { embeddings, manner, .. } = self;
        let cache = Mutex::new(Cache::new(CACHED_TEXTS, CACHED_BYTES));
        Ok(TextEncoders { encoders, embeddings, manner, cache })
    }
}

/// The state that is `distance` layers before the last.
fn from_end(output: &ClipOutput, distance: usize) -> &Tensor {
    let last = output.hidden_states.len() - 1;
    &output.hidden_states[last.saturating_sub(distance)]
}

impl TextEncoder {
    fn load(opened: &Opened<'_>, folder: &'static str) -> Result<Self> {
        let file = format!("{folder}/config.json");
        let config = config(opened, folder)?;
        let tokens = Tokens::load(opened, folder, &config)?;
        let model =
            ClipTextModel::load(&opened.weights(folder, TEXT_STEM)?, config, &opened.describe(&file))?;
        Ok(Self { folder, tokens: Arc::new(tokens), model })
    }

    fn width(&self) -> usize {
        self.model.config().hidden_size
    }
}
