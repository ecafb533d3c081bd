//! What a prompt may hold beside words: weights, breaks, wildcards and textual inversions.
//!
//! A prompt passes through these in order: [`resolve_wildcards`] chooses among `{a|b}` by the image's seed, [`parse`]
//! reads the weights, the tokens are laid into chunks as long as the text encoder reads, and each chunk is encoded by
//! itself.

mod cache;
mod chunks;
mod embeddings;
mod emphasis;
mod texts;
mod wildcards;

pub(crate) use cache::Cache;
pub(crate) use chunks::{Chunk, Unit, chunks, single_chunk};
pub(crate) use embeddings::{Embeddings, Fit, Part};
pub use emphasis::{MAX_WEIGHT, Piece, WeightError, escape, parse};
pub(crate) use texts::{Field, Texts};
pub use wildcards::resolve_wildcards;

/// The most chunks that one prompt may have. The 10000 characters that a request may hold are about 2200 tokens of
/// English: 30 chunks of 75.
pub const MAX_CHUNKS: usize = 32;

/// What stands for itself after a backslash.
const ESCAPED: [char; 8] = ['(', ')', '[', ']', '{', '}', '|', '\\'];

/// The character that a backslash at the start of `text` makes literal.
fn escaped(text: &str) -> Option<char> {
    text.strip_prefix('\\')?.chars().next().filter(|c| ESCAPED.contains(c))
}
