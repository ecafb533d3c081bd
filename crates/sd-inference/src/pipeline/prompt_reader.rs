//! Whether prompts fit a model, without its weights.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{DType, Device};

use super::load::Opened;
use super::text;
use super::tokens::Tokens;
use super::{LoadOptions, ModelSource};
use crate::prompt::{Embeddings, Fit, Part, Piece, Texts, parse};
use crate::{Error, GenerationRequest, Result};

/// What of a model reads prompts: its vocabularies and textual inversions. Cheap to clone.
#[derive(Clone)]
pub struct PromptReader {
    encoders: Vec<Arc<Tokens>>,
    embeddings: Arc<Embeddings>,
}

impl PromptReader {
    pub(super) fn new(encoders: Vec<Arc<Tokens>>, embeddings: Arc<Embeddings>) -> Self {
        Self { encoders, embeddings }
    }

    /// Reads the vocabularies and textual inversions of a model that is not loaded, and no weights.
    ///
    /// # Errors
    /// As [`Pipeline::load`](crate::Pipeline::load), as far as that shows in these files.
    pub fn open(source: &ModelSource, options: &LoadOptions) -> Result<Self> {
        let opened = Opened { source, options };
        let (mut encoders, mut widths) = (Vec::new(), Vec::new());
        for folder in text::folders(&opened) {
            let config = text::config(&opened, folder)?;
            encoders.push(Arc::new(Tokens::load(&opened, folder, &config)?));
            widths.push(config.hidden_size);
        }
        let room = encoders.iter().map(|tokens| tokens.room()).min().unwrap_or(0);
        let fit = Fit { widths: &widths, room, device: &Device::Cpu, dtype: DType::F32 };
        // What does not fit is told where the model is described and loaded.
        let (embeddings, _) = Embeddings::load(&options.embeddings, options.embeddings_dir.as_deref(), &fit)?;
        Ok(Self::new(encoders, Arc::new(embeddings)))
    }

    /// What is wrong with the texts of all images of the request: for each field the first
    /// [`Error::InvalidRequest`] that [`Pipeline::begin`](crate::Pipeline::begin) would meet, a weight out of range or more than
    /// [`MAX_CHUNKS`](crate::prompt::MAX_CHUNKS) chunks. Negative prompts are read also where guidance makes none of them.
    pub fn faults(&self, request: &GenerationRequest) -> Vec<Error> {
        let mut faults: Vec<(&str, Error)> = Vec::new();
        for image in 0..request.num_images as u64 {
            let texts = Texts::of(request, request.seed.wrapping_add(image));
            for pair in std::iter::once(&texts.positive).chain(&texts.negative) {
                for (tokens, (field, text)) in self.encoders.iter().zip(pair) {
                    // Without wildcards all images have the text of the first.
                    let again = image > 0 && matches!(text, Cow::Borrowed(_));
                    if again || faults.iter().any(|(known, _)| known == field) {
                        continue;
                    }
                    if let Err(error) = tokens.laid(&self.embeddings, field, text, request.prompt_weighting) {
                        faults.push((field, error));
                    }
                }
            }
        }
        faults.into_iter().map(|(_, error)| error).collect()
    }

    /// For each image of the request the textual inversions that its texts name, each once, by the names of their files
    /// without the ending. Negative prompts are read also where guidance makes none of them; a text that cannot be read
    /// names none.
    pub fn embeddings(&self, request: &GenerationRequest) -> Vec<Vec<&str>> {
        let of_image = |image: u64| {
            let texts = Texts::of(request, request.seed.wrapping_add(image));
            let mut found = Vec::new();
            for pair in std::iter::once(&texts.positive).chain(&texts.negative) {
                for (_, (_, text)) in self.encoders.iter().zip(pair) {
                    self.find(text, request.prompt_weighting, &mut found);
                }
            }
            found
        };
        (0..request.num_images as u64).map(of_image).collect()
    }

    /// Adds the textual inversions that `text` names to those that were `found`.
    fn find<'a>(&'a self, text: &str, weighting: bool, found: &mut Vec<&'a str>) {
        let pieces = match weighting {
            true => parse(text).unwrap_or_default(),
            false => vec![Piece::Text { text: text.to_owned(), weight: 1.0 }],
        };
        for piece in pieces {
            let Piece::Text { text, .. } = piece else { continue };
            for part in self.embeddings.split(&text) {
                let Part::Embedding(which) = part else { continue };
                let name = self.embeddings.name(which);
                if !found.contains(&name) {
                    found.push(name);
                }
            }
        }
    }
}

impl std::fmt::Debug for PromptReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PromptReader").field("encoders", &self.encoders.len()).finish_non_exhaustive()
    }
}
