//! Texts to the chunks that a text encoder reads.

use sd_models::clip::{ClipTextConfig, ClipTokenizer};

use super::ModelSource;
use super::load::Opened;
use crate::prompt::{
    self, Chunk, Embeddings, MAX_CHUNKS, Part, Piece, Unit, WeightError, chunks, single_chunk,
};
use crate::{Error, Result};

/// What cuts the texts of one encoder.
pub(super) enum Tokens {
    Clip(Box<ClipTokenizer>),
    /// Models with random weights have no vocabulary: ids are made from the text's bytes.
    Bytes {
        length: usize,
        vocabulary: u32,
    },
}

impl Tokens {
    /// Those of the encoder in `folder`, which `config` describes.
    pub(super) fn load(opened: &Opened<'_>, folder: &str, config: &ClipTextConfig) -> Result<Self> {
        let length = config.max_position_embeddings;
        let tokenizer = if folder == "text_encoder" { "tokenizer" } else { "tokenizer_2" };
        Ok(match opened.source {
            ModelSource::Files(files) => Self::Clip(Box::new(ClipTokenizer::load(files, tokenizer, length)?)),
            ModelSource::Random(_) => Self::Bytes { length, vocabulary: config.vocab_size as u32 },
        })
    }

    /// The chunks of a text, and how many of its tokens found no room. `field` names it in errors.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for a weight out of range, and for more than [`MAX_CHUNKS`] chunks.
    pub(super) fn laid(
        &self,
        embeddings: &Embeddings,
        field: &'static str,
        text: &str,
        weighting: bool,
    ) -> Result<(Vec<Chunk>, usize)> {
        let units = self.units(embeddings, field, text, weighting)?;
        if !weighting {
            let (chunk, dropped) = single_chunk(&units, self.room());
            return Ok((vec![chunk], dropped));
        }
        let chunks = chunks(&units, self.room(), self.comma());
        if chunks.len() > MAX_CHUNKS {
            let (count, room) = (chunks.len(), self.room());
            let total: usize = chunks.iter().map(|chunk| chunk.ids.len()).sum();
            return Err(Error::InvalidRequest {
                field,
                value: format!("{total} tokens in {count} chunks"),
                limit: format!("at most {MAX_CHUNKS} chunks of {room} tokens"),
            });
        }
        Ok((chunks, 0))
    }

    /// What of `text` takes room in a chunk.
    fn units(
        &self,
        embeddings: &Embeddings,
        field: &'static str,
        text: &str,
        weighting: bool,
    ) -> Result<Vec<Unit>> {
        let pieces = match weighting {
            true => prompt::parse(text).map_err(|error| refusal(field, error))?,
            false => vec![Piece::Text { text: text.to_owned(), weight: 1.0 }],
        };
        let mut units = Vec::new();
        for piece in pieces {
            let Piece::Text { text, weight } = piece else {
                units.push(Unit::Break);
                continue;
            };
            let weight = weight as f32;
            for part in embeddings.split(&text) {
                match part {
                    Part::Text(text) => {
                        let ids = self.ids(text)?;
                        units.extend(ids.into_iter().map(|id| Unit::Token(id, weight)));
                    }
                    Part::Embedding(which) => {
                        units.push(Unit::Embedding(which, embeddings.count(which), weight));
                    }
                }
            }
        }
        Ok(units)
    }

    /// The ids of a text alone.
    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        match self {
            Self::Clip(tokenizer) => Ok(tokenizer.tokenize(text)?),
            Self::Bytes { .. } => Ok(text.bytes().map(u32::from).collect()),
        }
    }

    /// How many tokens of a text one chunk holds.
    pub(super) fn room(&self) -> usize {
        match self {
            Self::Clip(tokenizer) => tokenizer.room(),
            Self::Bytes { length, .. } => length.saturating_sub(2),
        }
    }

    /// A chunk as the encoder reads it: start, `ids`, end, padding.
    pub(super) fn frame(&self, ids: Vec<u32>) -> Vec<u32> {
        match self {
            Self::Clip(tokenizer) => tokenizer.frame(ids),
            Self::Bytes { length, vocabulary } => {
                let mut framed = vec![vocabulary - 2];
                framed.extend(ids.into_iter().take(self.room()));
                framed.resize(*length, vocabulary - 1);
                framed
            }
        }
    }

    /// The token behind which a chunk may end early.
    fn comma(&self) -> Option<u32> {
        match self {
            Self::Clip(tokenizer) => tokenizer.comma(),
            Self::Bytes { .. } => Some(u32::from(b',')),
        }
    }
}

fn refusal(field: &'static str, error: WeightError) -> Error {
    let WeightError { weight, text, limit } = error;
    Error::InvalidRequest { field, value: format!("weighted {weight} at `{text}`"), limit }
}
