//! CLIP text encoders: the original CLIP-L and the OpenCLIP models behind SD 2.x and SDXL, and their tokenizer.

mod config;
mod inversion;
mod model;
mod tokenizer;

pub use config::ClipTextConfig;
pub use inversion::TextualInversion;
pub use model::{ClipOutput, ClipTextModel, Replacement};
pub use tokenizer::ClipTokenizer;
