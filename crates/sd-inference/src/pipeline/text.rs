//! Prompts to what the UNet is conditioned on.

use candle_core::{D, Tensor};
use sd_models::clip::{ClipOutput, ClipTextConfig, ClipTextModel, ClipTokenizer};

use super::ModelSource;
use super::load::{Opened, TEXT_STEM};
use crate::Result;

/// One or two CLIP encoders with their tokenizers.
pub(crate) struct TextEncoders {
    encoders: Vec<TextEncoder>,
    force_zeros_for_empty_prompt: bool,
}

struct TextEncoder {
    tokens: Tokens,
    model: ClipTextModel,
}

enum Tokens {
    Clip(Box<ClipTokenizer>),
    /// Models with random weights have no vocabulary: ids are made from the text's bytes.
    Bytes {
        length: usize,
        vocabulary: u32,
    },
}

/// The states that a prompt gives.
#[derive(Debug, Clone)]
pub(crate) struct TextConditioning {
    /// `(1, tokens, cross_attention_dim)`.
    pub(crate) states: Tensor,
    /// `(1, projection_dim)` where the model has two encoders.
    pub(crate) pooled: Option<Tensor>,
    /// Tokens of the prompt that the encoder had no room for.
    pub(crate) dropped_tokens: usize,
}

impl TextEncoders {
    pub(super) fn load(opened: &Opened<'_>, force_zeros_for_empty_prompt: bool) -> Result<Self> {
        let mut encoders = vec![TextEncoder::load(opened, "text_encoder", "tokenizer")?];
        if opened.contains("text_encoder_2/config.json") {
            encoders.push(TextEncoder::load(opened, "text_encoder_2", "tokenizer_2")?);
        }
        Ok(Self { encoders, force_zeros_for_empty_prompt })
    }

    /// The width of the states.
    pub(super) fn width(&self) -> usize {
        self.encoders.iter().map(|encoder| encoder.model.config().hidden_size).sum()
    }

    /// The most layers that `clip_skip` can leave out.
    pub(crate) fn max_clip_skip(&self) -> usize {
        let layers =
            self.encoders.iter().map(|encoder| encoder.model.config().num_hidden_layers).min().unwrap_or(1);
        layers.saturating_sub(if self.encoders.len() > 1 { 2 } else { 1 })
    }

    /// Encodes a prompt. With one encoder the states are its last after the final norm; with two, the
    /// last but one of both, side by side, and the second encoder's pooled state.
    ///
    /// References: `StableDiffusionPipeline.encode_prompt`, `StableDiffusionXLPipeline.encode_prompt`.
    pub(crate) fn encode(&self, prompt: &str, clip_skip: usize) -> Result<TextConditioning> {
        let mut states = Vec::new();
        let mut pooled = None;
        let mut dropped_tokens = 0;
        let single = self.encoders.len() == 1;
        for encoder in &self.encoders {
            let (ids, dropped) = encoder.tokens.encode(prompt)?;
            dropped_tokens = dropped_tokens.max(dropped);
            let output = encoder.model.forward(&[ids])?;
            states.push(match (single, clip_skip) {
                (true, 0) => output.last_hidden_state.clone(),
                (true, skip) => encoder.model.final_layer_norm(from_end(&output, skip))?,
                (false, skip) => from_end(&output, skip + 1).clone(),
            });
            pooled = Some(output.pooled);
        }
        Ok(TextConditioning {
            states: Tensor::cat(&states, D::Minus1)?,
            pooled: pooled.filter(|_| !single),
            dropped_tokens,
        })
    }

    /// Encodes what guidance pushes away from. Without a text, some models want zeros instead of an empty prompt.
    pub(crate) fn encode_negative(
        &self,
        prompt: Option<&str>,
        positive: &TextConditioning,
        clip_skip: usize,
    ) -> Result<TextConditioning> {
        if prompt.is_none() && self.force_zeros_for_empty_prompt && positive.pooled.is_some() {
            return Ok(TextConditioning {
                states: positive.states.zeros_like()?,
                pooled: positive.pooled.as_ref().map(Tensor::zeros_like).transpose()?,
                dropped_tokens: 0,
            });
        }
        self.encode(prompt.unwrap_or(""), clip_skip)
    }
}

/// The state that is `distance` layers before the last.
fn from_end(output: &ClipOutput, distance: usize) -> &Tensor {
    let last = output.hidden_states.len() - 1;
    &output.hidden_states[last.saturating_sub(distance)]
}

impl TextEncoder {
    fn load(opened: &Opened<'_>, folder: &str, tokenizer: &str) -> Result<Self> {
        let file = format!("{folder}/config.json");
        let config: ClipTextConfig = opened.json(&file)?;
        config.check(&opened.describe(&file))?;
        let length = config.max_position_embeddings;
        let tokens = match opened.source {
            ModelSource::Files(files) => {
                Tokens::Clip(Box::new(ClipTokenizer::load(files, tokenizer, length)?))
            }
            ModelSource::Random(_) => Tokens::Bytes { length, vocabulary: config.vocab_size as u32 },
        };
        let model =
            ClipTextModel::load(&opened.weights(folder, TEXT_STEM)?, config, &opened.describe(&file))?;
        Ok(Self { tokens, model })
    }
}

impl Tokens {
    fn encode(&self, prompt: &str) -> Result<(Vec<u32>, usize)> {
        match self {
            Self::Clip(tokenizer) => Ok(tokenizer.encode(prompt)?),
            Self::Bytes { length, vocabulary } => {
                let (begin, end) = (vocabulary - 2, vocabulary - 1);
                let room = length - 2;
                let mut ids = vec![begin];
                ids.extend(prompt.bytes().take(room).map(u32::from));
                ids.resize(*length, end);
                Ok((ids, prompt.len().saturating_sub(room)))
            }
        }
    }
}

impl TextConditioning {
    /// The same for each of `count` images.
    pub(crate) fn repeat(&self, count: usize) -> Result<Self> {
        Ok(Self {
            states: self.states.repeat((count, 1, 1))?,
            pooled: self.pooled.as_ref().map(|pooled| pooled.repeat((count, 1))).transpose()?,
            dropped_tokens: self.dropped_tokens,
        })
    }
}
