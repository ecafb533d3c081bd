//! Scaled dot-product attention by blocks of queries, with an online softmax: scores never leave the cache.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

pub(crate) mod panel;
mod softmax;
mod tiles;
mod vectors;

use half::bf16;

use crate::amx::Tiles;
use crate::buffer::with_scratch;
use crate::element::{Element, Output, Values, typed};
use crate::error::{expect, expect_at_least};
use crate::parallel::{self, Shared};
use crate::{KernelError, Kernels};

/// The sizes of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Independent sequences.
    pub batch: usize,
    /// Heads of each.
    pub heads: usize,
    /// Queries of each sequence.
    pub queries: usize,
    /// Keys (and values) of each sequence.
    pub keys: usize,
    /// Values in a head.
    pub head_dim: usize,
}

/// A (batch, length, heads, head_dim) tensor whose rows of `heads * head_dim` values lie `stride` apart: a
/// plain (batch, length, heads * head_dim) tensor, or a third of a fused projection of q, k and v.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, T> {
    /// Starts at the first row's first head; may end with the last row's last head.
    pub data: &'a [T],
    /// Values from one row to the next.
    pub stride: usize,
}

impl<'a, T> Rows<'a, T> {
    /// Rows of `width` values without gaps.
    pub fn contiguous(data: &'a [T], width: usize) -> Self {
        Self { data, stride: width }
    }

    fn fits(&self, what: &'static str, rows: usize, width: usize) -> Result<(), KernelError> {
        if rows == 0 || width == 0 {
            return Ok(());
        }
        expect_at_least(what, width, self.stride)?;
        expect_at_least(what, (rows - 1) * self.stride + width, self.data.len())
    }
}

fn check_views<T>(
    [q, k, v]: [&Rows<'_, T>; 3],
    [queries, keys]: [usize; 2],
    width: usize,
) -> Result<(), KernelError> {
    q.fits("attention: query values", queries, width)?;
    k.fits("attention: key values", keys, width)?;
    v.fits("attention: value values", keys, width)
}

/// Which keys a query attends to. A query without any gives zeros.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub enum Mask<'a> {
    /// All keys.
    #[default]
    None,
    /// Key `j` only from query `j` on.
    Causal,
    /// The keys marked true, (batch, keys).
    Keys(&'a [bool]),
}

impl Kernels {
    /// `softmax(scale * q k^T + mask) v` for each batch and head; `output` is (batch, queries, heads *
    /// head_dim), contiguous. A query's result does not depend on the other queries.
    #[allow(clippy::too_many_arguments)]
    pub fn attention<I: Element, O: Element>(
        self,
        shape: AttentionShape,
        q: Rows<'_, I>,
        k: Rows<'_, I>,
        v: Rows<'_, I>,
        scale: f32,
        mask: Mask<'_>,
        output: &mut [O],
    ) -> Result<(), KernelError> {
        let plan = Plan { kernels: self, shape, scale, mask };
        let views = match [q, k, v].map(|rows| I::values(rows.data)) {
            [Values::F32(q_data), Values::F32(k_data), Values::F32(v_data)] => Views::F32(
                Rows { data: q_data, stride: q.stride },
                Rows { data: k_data, stride: k.stride },
                Rows { data: v_data, stride: v.stride },
            ),
            [Values::Bf16(q_data), Values::Bf16(k_data), Values::Bf16(v_data)] => Views::Bf16(
                Rows { data: q_data, stride: q.stride },
                Rows { data: k_data, stride: k.stride },
                Rows { data: v_data, stride: v.stride },
            ),
            _ => return Err(KernelError::Unsupported("attention of mixed element types")),
        };
        plan.check(&views, O::output(output, None))
    }
}

/// Queries, keys and values of either element type.
#[derive(Clone, Copy)]
enum Views<'a> {
    F32(Rows<'a, f32>, Rows<'a, f32>, Rows<'a, f32>),
    Bf16(Rows<'a, bf16>, Rows<'a, bf16>, Rows<'a, bf16>),
}

/// What all tasks of one attention share.
struct Plan<'a> {
    kernels: Kernels,
    shape: AttentionShape,
    scale: f32,
    mask: Mask<'a>,
}

impl Plan<'_> {
    /// Checks the sizes and runs what fits the element type.
    fn check(&self, views: &Views<'_>, output: Output<'_>) -> Result<(), KernelError> {
        let AttentionShape { batch, heads, queries, keys, head_dim } = self.shape;
        let width = heads * head_dim;
        match views {
            Views::F32(q, k, v) => check_views([q, k, v], [batch * queries, batch * keys], width)?,
            Views::Bf16(q, k, v) => check_views([q, k, v], [batch * queries, batch * keys], width)?,
        }
        expect("attention: output values", batch * queries * width, output.len())?;
        if let Mask::Keys(allowed) = self.mask {
            expect("attention: mask values", batch * keys, allowed.len())?;
        }
        crate::work::count(2 * batch * heads * queries * keys * head_dim);
        if output.len() == 0 {
            return Ok(());
        }
        // SAFETY: the views and the output were checked.
        typed!(output, output, _ => unsafe {
            match (*views, self.kernels.tiles()) {
                (Views::F32(q, k, v), _) => self.run_on_vectors(q, k, v, output),
                (Views::Bf16(q, k, v), Some(tiles)) => self.run_on_tiles(tiles, q, k, v, output),
                (Views::Bf16(q, k, v), None) => self.run_on_vectors(q, k, v, output),
            }
        });
        Ok(())
    }

    /// Packs keys and values, then takes the queries block by block, on matrix tiles.
    ///
    /// # Safety
    /// The views and the output fit the shape.
    unsafe fn run_on_tiles<O: Element>(
        &self,
        tiles: Tiles,
        q: Rows<'_, bf16>,
        k: Rows<'_, bf16>,
        v: Rows<'_, bf16>,
        output: &mut [O],
    ) {
        let AttentionShape { batch, heads, queries, keys, head_dim } = self.shape;
        let width = heads * head_dim;
        let (key_len, value_len) = (tiles::packed(keys, head_dim), tiles::packed(head_dim, keys));
        let blocks = queries.div_ceil(tiles::QUERIES);
        let len = key_len + value_len;
        // Two bf16 values to an f32 of scratch.
        with_scratch(batch * heads * len / 2, |scratch| {
            let packed = Shared(scratch.as_mut_ptr().cast::<bf16>());
            parallel::for_each(batch * heads, |head| {
                let (sequence, head_at) = (head / heads * keys, head % heads * head_dim);
                let (rows, to) = (keys, packed.at(head * len));
                let from = k.data.as_ptr().wrapping_add(sequence * k.stride + head_at);
                self.kernels.dispatch(tiles::PackKeys { from, stride: k.stride, rows, head_dim, to });
                let from = v.data.as_ptr().wrapping_add(sequence * v.stride + head_at);
                let to = to.wrapping_add(key_len);
                self.kernels.dispatch(tiles::PackValues { from, stride: v.stride, rows, head_dim, to });
            });
            let output = Shared(output.as_mut_ptr());
            parallel::for_each(batch * heads * blocks, |task| {
                let (head, block) = (task / blocks, task % blocks);
                let keys = packed.at(head * len);
                let (sequence, head_at) = (head / heads * queries, head % heads * head_dim);
                let rows = block * tiles::QUERIES..queries.min((block + 1) * tiles::QUERIES);
                let first = sequence + rows.start;
                let from = q.data.as_ptr().wrapping_add(first * q.stride + head_at);
                let to = output.at(first * width + head_at);
                let values = keys.wrapping_add(key_len);
                // SAFETY: the views fit; the blocks of queries and heads do not overlap.
                unsafe { self.tile_block(tiles, head / heads, rows, from, q.stride, keys, values, to) };
            });
        });
    }

    /// How many keys some query before `end` may see.
    fn keys_seen(&self, end: usize) -> usize {
        match self.mask {
            Mask::Causal => self.shape.keys.min(end),
            _ => self.shape.keys,
        }
    }

    /// The first row's position, if a query sees no later keys.
    fn causal_from(&self, rows: &std::ops::Range<usize>) -> Option<usize> {
        matches!(self.mask, Mask::Causal).then_some(rows.start)
    }

    /// Sets the scores of masked keys to minus infinity.
    fn hide(&self, scores: &mut [f32], stride: usize, rows: usize, allowed: &[bool]) {
        for row in scores.chunks_exact_mut(stride).take(rows) {
            let masked = row.iter_mut().zip(allowed).filter(|(_, allowed)| !**allowed);
            masked.for_each(|(score, _)| *score = f32::NEG_INFINITY);
        }
    }
}
