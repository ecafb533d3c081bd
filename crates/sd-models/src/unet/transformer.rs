//! The spatial transformer inside attention blocks; references `diffusers.Transformer2DModel` and
//! `diffusers.models.attention.BasicTransformerBlock`.

use candle_core::Tensor;

use super::config::Level;
use crate::nn::{FeatureMap, GegluLinear, GroupNorm, LayerNorm, Linear, Mask, attention};
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
    pub(super) fn forward(&self, input: &FeatureMap, text: &Tensor) -> Result<FeatureMap> {
        let (_, _, height, width) = input.dims();
        let mut state = self.proj_in.forward(&self.norm.forward(input)?.to_tokens()?)?;
        for block in &self.blocks {
            state = block.forward(&state, text)?;
        }
        let output = self.proj_out.forward_residual(&state, &input.to_tokens()?)?;
        FeatureMap::from_tokens(&output, height, width)
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
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: Attention::load(&weights.child("attn1"), width, width, level.heads)?,
            norm2: norm("norm2")?,
            attn2: Attention::load(&weights.child("attn2"), width, level.cross_dim, level.heads)?,
            norm3: norm("norm3")?,
            gate: GegluLinear::load(&weights.child("ff.net.0.proj"), width, 4 * width)?,
            down: Linear::load(&weights.child("ff.net.2"), 4 * width, width)?,
        })
    }

    fn forward(&self, state: &Tensor, text: &Tensor) -> Result<Tensor> {
        let normed = self.norm1.forward(state)?;
        let state = self.attn1.forward(&normed, &normed, state)?;
        let state = self.attn2.forward(&self.norm2.forward(&state)?, text, &state)?;
        let inner = self.gate.forward(&self.norm3.forward(&state)?)?;
        self.down.forward_residual(&inner, &state)
    }
}

/// Attention with its four projections.
#[derive(Debug)]
struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
}

impl Attention {
    fn load(weights: &Weights, width: usize, context: usize, heads: usize) -> Result<Self> {
        Ok(Self {
            to_q: Linear::load_without_bias(&weights.child("to_q"), width, width)?,
            to_k: Linear::load_without_bias(&weights.child("to_k"), context, width)?,
            to_v: Linear::load_without_bias(&weights.child("to_v"), context, width)?,
            to_out: Linear::load(&weights.child("to_out.0"), width, width)?,
            heads,
        })
    }

    fn forward(&self, state: &Tensor, context: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let mixed = attention(
            &self.to_q.forward(state)?,
            &self.to_k.forward(context)?,
            &self.to_v.forward(context)?,
            self.heads,
            Mask::None,
        )?;
        self.to_out.forward_residual(&mixed, residual)
    }
}
