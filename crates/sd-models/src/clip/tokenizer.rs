//! CLIP's byte-pair tokenizer, from `tokenizer.json` or from `vocab.json` and `merges.txt`.

use serde::Deserialize;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use crate::{Error, ModelFiles, Result};

/// How CLIP cuts text before merging bytes: contractions, words, single digits, runs of anything else.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
const BEGIN: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// Turns prompts into the ids that a CLIP text encoder reads.
#[derive(Debug)]
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    begin: u32,
    end: u32,
    pad: u32,
    max_length: usize,
}

/// `tokenizer_config.json`; unknown fields do not matter.
#[derive(Deserialize, Default)]
struct TokenizerConfig {
    #[serde(default)]
    pad_token: Option<TokenName>,
    #[serde(default)]
    model_max_length: Option<f64>,
}

/// `special_tokens_map.json`.
#[derive(Deserialize, Default)]
struct SpecialTokens {
    #[serde(default)]
    pad_token: Option<TokenName>,
}

/// A token is written as text or as an object around its text.
#[derive(Deserialize)]
#[serde(untagged, expecting = "must be a text, or an object with `content`")]
enum TokenName {
    Text(String),
    Object { content: String },
}

impl TokenName {
    fn text(self) -> String {
        match self {
            Self::Text(text) | Self::Object { content: text } => text,
        }
    }
}

impl ClipTokenizer {
    /// Loads the tokenizer in `folder` (`tokenizer`, `tokenizer_2`).
    ///
    /// `max_length` is the encoder's `max_position_embeddings`; a smaller `model_max_length` of the folder wins.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Json`] for unreadable files, [`Error::Tokenizer`] when they make no tokenizer or
    /// lack a token.
    pub fn load(files: &ModelFiles, folder: &str, max_length: usize) -> Result<Self> {
        let optional = |name: &str| files.contains(&format!("{folder}/{name}"));
        let json = format!("{folder}/tokenizer.json");
        let (mut tokenizer, file) = if files.contains(&json) {
            let bytes = files.bytes(&json)?;
            let mut tokenizer = Tokenizer::from_bytes(bytes.as_slice()).map_err(|error| {
                Error::Tokenizer { file: files.describe(&json), reason: error.to_string() }
            })?;
            // The file may carry padding and truncation of its own; both are done here.
            tokenizer.with_padding(None);
            tokenizer.with_truncation(None).map_err(|error| Error::Tokenizer {
                file: files.describe(&json),
                reason: error.to_string(),
            })?;
            (tokenizer, json)
        } else {
            let vocab = format!("{folder}/vocab.json");
            (from_vocab_and_merges(files, &vocab, &format!("{folder}/merges.txt"))?, vocab)
        };
        let config: TokenizerConfig = match optional("tokenizer_config.json") {
            true => files.json(&format!("{folder}/tokenizer_config.json"))?,
            false => TokenizerConfig::default(),
        };
        let special: SpecialTokens = match optional("special_tokens_map.json") {
            true => files.json(&format!("{folder}/special_tokens_map.json"))?,
            false => SpecialTokens::default(),
        };
        // SD 2.x and SDXL name two pad tokens; the map is the one that counts.
        let pad = special.pad_token.or(config.pad_token).map_or_else(|| END.to_owned(), TokenName::text);
        if tokenizer.token_to_id(&pad).is_some() {
            // The pad token is special: wherever a prompt contains it, it stands for itself. Pads such as `!` make
            // this visible.
            tokenizer.add_special_tokens([AddedToken::from(pad.as_str(), true)]).map_err(|error| {
                Error::Tokenizer { file: files.describe(&file), reason: error.to_string() }
            })?;
        }
        let id = |token: &str| {
            tokenizer.token_to_id(token).ok_or_else(|| Error::Tokenizer {
                file: files.describe(&file),
                reason: format!("the vocabulary has no token `{token}`"),
            })
        };
        // "No limit" is written as 1e30 by some exporters.
        let max_length = config.model_max_length.map_or(max_length, |limit| (limit as usize).min(max_length));
        Ok(Self { begin: id(BEGIN)?, end: id(END)?, pad: id(&pad)?, max_length, tokenizer })
    }

    /// The longest sequence, start and end tokens included.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The ids of `text` alone: no start, no end, no limit.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the text cannot be encoded.
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|error| Error::Tokenizer { file: "prompt".into(), reason: error.to_string() })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Start, the ids of `text`, end, padding: exactly [`ClipTokenizer::max_length`] ids. Also says how many ids
    /// of the text did not fit.
    ///
    /// # Errors
    /// As [`ClipTokenizer::tokenize`].
    pub fn encode(&self, text: &str) -> Result<(Vec<u32>, usize)> {
        let ids = self.tokenize(text)?;
        let dropped = ids.len().saturating_sub(self.room());
        Ok((self.frame(ids), dropped))
    }

    /// How many tokens of a text one sequence holds.
    pub fn room(&self) -> usize {
        self.max_length.saturating_sub(2)
    }

    /// Start, `ids` as far as there is room, end, padding: exactly [`ClipTokenizer::max_length`] ids.
    pub fn frame(&self, mut ids: Vec<u32>) -> Vec<u32> {
        ids.truncate(self.room());
        ids.insert(0, self.begin);
        ids.push(self.end);
        ids.resize(self.max_length, self.pad);
        ids
    }

    /// The id of the comma that ends a word; `None` where the vocabulary has none.
    pub fn comma(&self) -> Option<u32> {
        self.tokenizer.token_to_id(",</w>")
    }
}

fn from_vocab_and_merges(files: &ModelFiles, vocab: &str, merges: &str) -> Result<Tokenizer> {
    let broken = |file: &str, reason: String| Error::Tokenizer { file: files.describe(file), reason };
    let table: std::collections::HashMap<String, u32> = files.json(vocab)?;
    let bytes = files.bytes(merges)?;
    let text = std::str::from_utf8(bytes.as_slice()).map_err(|error| broken(merges, error.to_string()))?;
    let mut pairs: Merges = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || (number == 0 && line.starts_with("#version")) {
            continue;
        }
        let pair = line.split_once(' ').filter(|(a, b)| !a.is_empty() && !b.trim().is_empty());
        let (left, right) = pair
            .ok_or_else(|| broken(merges, format!("line {} is no pair of tokens: `{line}`", number + 1)))?;
        pairs.push((left.to_owned(), right.trim_end().to_owned()));
    }
    let model = BPE::builder()
        .vocab_and_merges(table.into_iter().collect::<Vocab>(), pairs)
        .unk_token(END.into())
        .end_of_word_suffix("</w>".into())
        .continuing_subword_prefix(String::new())
        .build()
        .map_err(|error| broken(merges, error.to_string()))?;

    let pattern = |error: tokenizers::Error| broken(vocab, error.to_string());
    let mut tokenizer = Tokenizer::new(model);
    tokenizer
        .with_normalizer(Some(Normalizers::new(vec![
            NFC.into(),
            Replace::new(tokenizers::normalizers::replace::ReplacePattern::Regex(r"\s+".into()), " ")
                .map_err(pattern)?
                .into(),
            Lowercase.into(),
        ])))
        .map_err(pattern)?;
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![
        Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Removed, true)
            .map_err(pattern)?
            .into(),
        ByteLevel::new(false, true, false).into(),
    ])));
    let specials = [BEGIN, END].map(|token| AddedToken::from(token, true));
    tokenizer.add_special_tokens(specials).map_err(pattern)?;
    Ok(tokenizer)
}
