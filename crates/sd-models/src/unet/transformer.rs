//! The spatial transformer inside attention blocks; references `diffusers.Transformer2DModel` and
//! `diffusers.models.attention.BasicTransformerBlock`.

use super::config::Level;
use crate::nn::{
    Attention, AttentionConfig, FeatureMap, GegluLinear, GroupNorm, LayerNorm, Linear, Mask, Sequence,
};
use crate::{Result, Weights};

/// Epsilon of the group norm before a transformer; fixed in the reference.
const GROUP_NORM_EPS: f64 = 1e-6;
/// Epsilon of the layer norms inside; likewise.
const LAYER_NORM_EPS: f64 = 1e-5;

/// Pixels as a sequence through transformer blocks, added to the input.
#[derive(Debug)]
pub(super) struct SpatialTransformer {
    norm: GroupNorm,
    proj_in: Linear,
    blocks: Vec<TransformerBlock>,
    proj_out: Linear,
}

impl SpatialTransformer {
    pub(super) fn load(weights: &Weights, level: Level, groups: usize, linear: bool) -> Result<Self> {
        let channels = level.channels;
        let projection = |name: &str| match linear {
            true => Linear::load(&weights.child(name), channels, channels),
            false => Linear::load_pointwise(&weights.child(name), channels, channels),
        };
        Ok(Self {
            norm: GroupNorm::load(&weights.child("norm"), channels, groups, GROUP_NORM_EPS)?,
            proj_in: projection("proj_in")?,
            blocks: (0..level.depth)
                .map(|i| TransformerBlock::load(&weights.child(format!("transformer_blocks.{i}")), level))
                .collect::<Result<_>>()?,
            proj_out: projection("proj_out")?,
        })
    }

    /// `text` is `(batch, tokens, cross_dim)`.
    pub(super) fn forward(&self, input: &FeatureMap, text: &Sequence) -> Result<FeatureMap> {
        let mut state = self.proj_in.forward(&self.norm.forward(input)?.to_tokens()?)?;
        for block in &self.blocks {
            state = block.forward(&state, text)?;
        }
        input.with_tokens(self.proj_out.forward_residual(&state, &input.to_tokens()?)?)
    }
}

/// Self-attention, attention to the text, gated feed-forward; each after a norm and added to its input.
#[derive(Debug)]
struct TransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    gate: GegluLinear,
    down: Linear,
}

impl TransformerBlock {
    fn load(weights: &Weights, level: Level) -> Result<Self> {
        let width = level.channels;
        let norm = |name: &str| LayerNorm::load(&weights.child(name), width, LAYER_NORM_EPS);
        let attention = |name: &str, context_width: usize| {
            let weights = weights.child(name);
            let config =
                AttentionConfig { width, context_width, heads: level.heads, bias: false, mask: Mask::None };
            Attention::load(["to_q", "to_k", "to_v", "to_out.0"].map(|part| weights.child(part)), config)
        };
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: attention("attn1", width)?,
            norm2: norm("norm2")?,
            attn2: attention("attn2", level.cross_dim)?,
            norm3: norm("norm3")?,
            gate: GegluLinear::load(&weights.child("ff.net.0.proj"), width, 4 * width)?,
            down: Linear::load(&weights.child("ff.net.2"), 4 * width, width)?,
        })
    }

    fn forward(&self, state: &Sequence, text: &Sequence) -> Result<Sequence> {
        let normed = self.norm1.forward(state)?;
        let state = self.attn1.forward(&normed, &normed, state)?;
        let state = self.attn2.forward(&self.norm2.forward(&state)?, text, &state)?;
        let inner = self.gate.forward(&self.norm3.forward(&state)?)?;
        self.down.forward_residual(&inner, &state)
    }
}
