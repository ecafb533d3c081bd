//! Scaled dot-product attention with its projections.

use candle_core::{DType, Tensor};
use sd_kernels::{AttentionShape, Rows};

use super::array::{Array, write};
use super::sequence::{SequenceData, mixed_devices};
use super::{Linear, Sequence, cpu};
use crate::{Result, Weights};

/// Which keys a query may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// All of them.
    None,
    /// Those at its own position and before.
    Causal,
}

/// Multi-head attention (Vaswani et al., 2017) between learnt projections.
#[derive(Debug)]
pub struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
    mask: Mask,
}

/// The shape of an [`Attention`].
#[derive(Debug, Clone, Copy)]
pub struct AttentionConfig {
    /// Channels of the state, of the queries and of the result.
    pub width: usize,
    /// Channels of what keys and values are made from; `width` in self-attention.
    pub context_width: usize,
    /// How many heads share the width.
    pub heads: usize,
    /// Whether the projections to queries, keys and values have biases. The one to the output always has.
    pub bias: bool,
    /// Which keys are seen.
    pub mask: Mask,
}

impl Attention {
    /// Loads the projections to queries, keys, values and output, each from a scope of its own.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn load([query, key, value, output]: [Weights; 4], config: AttentionConfig) -> Result<Self> {
        let AttentionConfig { width, context_width, heads, bias, mask } = config;
        let project = |weights: &Weights, from: usize| match bias {
            true => Linear::load(weights, from, width),
            false => Linear::load_without_bias(weights, from, width),
        };
        Ok(Self {
            to_q: project(&query, width)?,
            to_k: project(&key, context_width)?,
            to_v: project(&value, context_width)?,
            to_out: Linear::load(&output, width, width)?,
            heads,
            mask,
        })
    }

    /// `residual` plus the attention from `state` `(batch, length, width)` to `context` `(batch, keys,
    /// context_width)`, which may be the state itself.
    ///
    /// Scores and softmax are f32 whatever the operands are.
    ///
    /// # Errors
    /// When the shapes do not fit, or on device errors.
    pub fn forward(&self, state: &Sequence, context: &Sequence, residual: &Sequence) -> Result<Sequence> {
        let mixed = self.mix(
            &self.to_q.forward_operand(state)?,
            &self.to_k.forward_operand(context)?,
            &self.to_v.forward_operand(context)?,
        )?;
        self.to_out.forward_residual(&mixed, residual)
    }

    /// `softmax(q k^T / sqrt(head_dim)) v`.
    fn mix(&self, query: &Sequence, key: &Sequence, value: &Sequence) -> Result<Sequence> {
        let ([batch, query_len, width], [_, key_len, _]) = (query.dims(), key.dims());
        let head_dim = width / self.heads;
        match (&query.0, &key.0, &value.0) {
            (
                SequenceData::Cpu { values: query, .. },
                SequenceData::Cpu { values: key, .. },
                SequenceData::Cpu { values: value, .. },
            ) => {
                let shape =
                    AttentionShape { batch, heads: self.heads, queries: query_len, keys: key_len, head_dim };
                let values = mix_on_cpu(shape, query, key, value, self.mask)?;
                Ok(Sequence(SequenceData::Cpu { values, dims: [batch, query_len, width] }))
            }
            (SequenceData::Device(query), SequenceData::Device(key), SequenceData::Device(value)) => {
                Ok(Sequence(SequenceData::Device(mix_tensors(query, key, value, self.heads, self.mask)?)))
            }
            _ => Err(mixed_devices()),
        }
    }
}

fn mix_on_cpu(shape: AttentionShape, query: &Array, key: &Array, value: &Array, mask: Mask) -> Result<Array> {
    let mask = match mask {
        Mask::None => sd_kernels::Mask::None,
        Mask::Causal => sd_kernels::Mask::Causal,
    };
    let scale = 1.0 / (shape.head_dim as f32).sqrt();
    let width = shape.heads * shape.head_dim;
    // All three come out of products of one format, and so does what the next product reads.
    let format = query.format();
    let (key, value) = (key.to_format(format)?, value.to_format(format)?);
    Ok(match (query, &key, &value) {
        (Array::F32(query), Array::F32(key), Array::F32(value)) => {
            let [query, key, value] = [query, key, value].map(|rows| Rows::contiguous(rows, width));
            write!(format, query.data.len(), output => {
                cpu::kernels().attention(shape, query, key, value, scale, mask, output)
            })
        }
        (Array::Bf16(query), Array::Bf16(key), Array::Bf16(value)) => {
            let [query, key, value] = [query, key, value].map(|rows| Rows::contiguous(rows, width));
            write!(format, query.data.len(), output => {
                cpu::kernels().attention(shape, query, key, value, scale, mask, output)
            })
        }
        _ => return Err(mixed_devices()),
    })
}

/// Rows of the score matrix that exist at once: bounds the memory of large pictures.
const MAX_SCORES: usize = 1 << 24;

/// Attention by candle's operations; all tensors `(batch, length, heads * head_dim)`.
fn mix_tensors(query: &Tensor, key: &Tensor, value: &Tensor, heads: usize, mask: Mask) -> Result<Tensor> {
    let (batch, query_len, width) = query.dims3()?;
    let key_len = key.dim(1)?;
    let head_dim = width / heads;
    let split = |tensor: &Tensor, length: usize| -> Result<Tensor> {
        Ok(tensor.reshape((batch, length, heads, head_dim))?.transpose(1, 2)?.contiguous()?.reshape((
            batch * heads,
            length,
            head_dim,
        ))?)
    };
    let scale = 1.0 / (head_dim as f64).sqrt();
    let query = (split(query, query_len)? * scale)?;
    let key = split(key, key_len)?.transpose(1, 2)?.contiguous()?;
    let value = split(value, key_len)?;

    let block = (MAX_SCORES / (batch * heads * key_len).max(1)).clamp(1, query_len);
    let mut blocks = Vec::with_capacity(query_len.div_ceil(block));
    let mut start = 0;
    while start < query_len {
        let rows = block.min(query_len - start);
        let mut scores = query.narrow(1, start, rows)?.contiguous()?.matmul(&key)?.to_dtype(DType::F32)?;
        if mask == Mask::Causal {
            scores = scores.broadcast_add(&causal_mask(start, rows, key_len, scores.device())?)?;
        }
        let weights = candle_nn::ops::softmax_last_dim(&scores)?.to_dtype(value.dtype())?;
        blocks.push(weights.matmul(&value)?);
        start += rows;
    }
    let output = if blocks.len() == 1 { blocks.remove(0) } else { Tensor::cat(&blocks, 1)? };
    Ok(output
        .reshape((batch, heads, query_len, head_dim))?
        .transpose(1, 2)?
        .contiguous()?
        .reshape((batch, query_len, width))?)
}

/// Zeros where query `start + i` may see key `j`, minus infinity elsewhere; `(1, rows, key_len)`.
fn causal_mask(
    start: usize,
    rows: usize,
    key_len: usize,
    device: &candle_core::Device,
) -> candle_core::Result<Tensor> {
    let values: Vec<f32> = (0..rows)
        .flat_map(|row| (0..key_len).map(move |key| if key > start + row { f32::NEG_INFINITY } else { 0.0 }))
        .collect();
    Tensor::from_vec(values, (1, rows, key_len), device)
}
