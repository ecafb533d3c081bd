//! Scaled dot-product attention.

use candle_core::{DType, Tensor};
use sd_kernels::{AttentionShape, Rows};

use super::cpu;
use crate::Result;

/// Which keys a query may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// All of them.
    None,
    /// Those at its own position and before.
    Causal,
}

/// Rows of the score matrix that exist at once: bounds the memory of large pictures.
const MAX_SCORES: usize = 1 << 24;

/// Multi-head attention: `softmax(q k^T / sqrt(head_dim)) v`.
///
/// `query` is `(batch, query_len, heads * head_dim)`, `key` and `value` `(batch, key_len, heads * head_dim)`; the
/// result has the query's shape. Scores and softmax are f32 whatever the inputs are.
///
/// # Errors
/// When the shapes do not fit, or on device errors.
pub fn attention(query: &Tensor, key: &Tensor, value: &Tensor, heads: usize, mask: Mask) -> Result<Tensor> {
    let (batch, query_len, width) = query.dims3()?;
    let key_len = key.dim(1)?;
    let head_dim = width / heads;
    if query.device().is_cpu() {
        let shape = AttentionShape { batch, heads, queries: query_len, keys: key_len, head_dim };
        let mask = match mask {
            Mask::None => sd_kernels::Mask::None,
            Mask::Causal => sd_kernels::Mask::Causal,
        };
        let scale = 1.0 / (head_dim as f32).sqrt();
        let mut output = vec![0f32; batch * query_len * width];
        cpu::values(query, |query| {
            cpu::values(key, |key| {
                cpu::values(value, |value| {
                    let rows = |data| Rows::contiguous(data, width);
                    let (query, key, value) = (rows(query), rows(key), rows(value));
                    Ok(cpu::kernels().attention(shape, query, key, value, scale, mask, &mut output)?)
                })
            })
        })?;
        return cpu::tensor(output, (batch, query_len, width));
    }
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
