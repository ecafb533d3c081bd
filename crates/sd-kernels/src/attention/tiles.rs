//! Attention in bf16 on matrix tiles: both products on tiles, the softmax between them in f32.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

use half::bf16;

use super::softmax::{Divide, Rescale, greatest};
use super::{AttentionShape, Mask, Plan};
use crate::amx::{PANEL, Session, TILE, TILE_DEPTH, TILE_ROWS, TileProduct, Tiles};
use crate::buffer::{carve, line_up, with_scratch};
use crate::element::Lanes;
use crate::simd::{Kernel, Simd, math};

/// Keys between two rescalings.
const KEYS: usize = 256;
/// Queries that a task takes.
pub(super) const QUERIES: usize = 64;
/// Rows that one tile product covers.
const PAIR: usize = 2 * TILE_ROWS;
/// Distance between rows of scores.
const SCORES: usize = KEYS + 16;

/// bf16 values of a matrix packed in panels of tiles.
pub(super) fn packed(columns: usize, depth: usize) -> usize {
    columns.div_ceil(PANEL) * depth.div_ceil(TILE_DEPTH) * 2 * TILE
}

/// Packs the keys of a head as the right-hand side of `q k^T`.
pub(super) struct PackKeys {
    pub(super) from: *const bf16,
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) head_dim: usize,
    pub(super) to: *mut bf16,
}

impl Kernel for PackKeys {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let steps = self.head_dim.div_ceil(TILE_DEPTH);
        for key in 0..self.rows.next_multiple_of(PANEL) {
            for step in 0..steps {
                let first = step * TILE_DEPTH;
                let n = if key < self.rows { (self.head_dim - first).min(TILE_DEPTH) } else { 0 };
                let mut line = [bf16::ZERO; TILE_DEPTH];
                // SAFETY: the caller vouches for the rows and for room for whole panels.
                unsafe {
                    let from = self.from.wrapping_add(key * self.stride + first);
                    std::ptr::copy_nonoverlapping(from, line.as_mut_ptr(), n);
                    let tile = (key / PANEL * steps + step) * 2 + key % PANEL / TILE_ROWS;
                    let to = self.to.add(tile * TILE + key % TILE_ROWS * 2);
                    for (i, pair) in line.chunks_exact(2).enumerate() {
                        *to.add(i * TILE_DEPTH) = pair[0];
                        *to.add(i * TILE_DEPTH + 1) = pair[1];
                    }
                }
            }
        }
    }
}

/// Packs the values of a head as the right-hand side of `weights v`.
pub(super) struct PackValues {
    pub(super) from: *const bf16,
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) head_dim: usize,
    pub(super) to: *mut bf16,
}

impl Kernel for PackValues {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let steps = self.rows.div_ceil(TILE_DEPTH);
        let line = |row: usize, first: usize| {
            let mut line = [bf16::ZERO; TILE_ROWS];
            if row < self.rows && first < self.head_dim {
                let n = (self.head_dim - first).min(TILE_ROWS);
                // SAFETY: the caller vouches for the rows.
                unsafe {
                    let from = self.from.add(row * self.stride + first);
                    std::ptr::copy_nonoverlapping(from, line.as_mut_ptr(), n);
                }
            }
            line
        };
        for pair in 0..steps * TILE_DEPTH / 2 {
            for tile in 0..self.head_dim.div_ceil(PANEL) * 2 {
                let (even, odd) = (line(2 * pair, tile * TILE_ROWS), line(2 * pair + 1, tile * TILE_ROWS));
                let (step, row) = (2 * pair / TILE_DEPTH, pair % (TILE_DEPTH / 2));
                let at = ((tile / 2 * steps + step) * 2 + tile % 2) * TILE + row * TILE_DEPTH;
                for (i, (even, odd)) in even.into_iter().zip(odd).enumerate() {
                    // SAFETY: the caller vouches for room for whole panels.
                    unsafe {
                        *self.to.add(at + 2 * i) = even;
                        *self.to.add(at + 2 * i + 1) = odd;
                    }
                }
            }
        }
    }
}

/// Copies queries to tiles; depth beyond the head is zero.
struct CopyQueries {
    from: *const bf16,
    stride: usize,
    rows: usize,
    head_dim: usize,
    to: *mut bf16,
}

impl Kernel for CopyQueries {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let steps = self.head_dim.div_ceil(TILE_DEPTH);
        for row in 0..self.rows {
            for step in 0..steps {
                let n = (self.head_dim - step * TILE_DEPTH).min(TILE_DEPTH);
                // SAFETY: the caller vouches for the rows and for room for whole tiles.
                unsafe {
                    let from = self.from.add(row * self.stride + step * TILE_DEPTH);
                    let tile = row / TILE_ROWS * steps + step;
                    let to = self.to.add(tile * TILE + row % TILE_ROWS * TILE_DEPTH);
                    std::ptr::copy_nonoverlapping(from, to, n);
                    std::ptr::write_bytes(to.add(n), 0, TILE_DEPTH - n);
                }
            }
        }
    }
}

/// Turns a block's scores into bf16 weights in tiles, relative to each row's greatest score so far.
struct TileSoftmax<'a> {
    /// Rows `SCORES` apart, in f32.
    scores: &'a [f32],
    keys: std::ops::Range<usize>,
    causal_from: Option<usize>,
    /// The scale of the scores times the logarithm that makes powers of two of exponentials.
    scale: f32,
    /// For each 16 rows, a tile for each 32 keys.
    weights: *mut bf16,
    rescale: Rescale<'a>,
}

impl Kernel for TileSoftmax<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let steps = self.keys.len().div_ceil(TILE_DEPTH);
        let scale = s.splat(self.scale);
        for row in 0..self.rescale.rows() {
            let scores = &self.scores[row * SCORES..][..self.keys.len()];
            let seen = match self.causal_from {
                Some(first) => (first + row + 1).saturating_sub(self.keys.start).min(scores.len()),
                None => scores.len(),
            };
            // SAFETY: every access is within the row's scores, or within the row's part of whole tiles.
            unsafe {
                let top = greatest(s, &scores[..seen]) * self.scale;
                let now = self.rescale.top(row, top);
                let shift = s.splat(-now);
                let to =
                    self.weights.add((row / TILE_ROWS * steps * TILE_ROWS + row % TILE_ROWS) * TILE_DEPTH);
                let from = scores.as_ptr();
                let mut sum = s.splat(0.0);
                let mut i = 0;
                while i < seen {
                    let at = to.add(i / TILE_DEPTH * TILE + i % TILE_DEPTH);
                    if i + S::LANES <= seen {
                        let e = math::exp2_rough(s, s.fma(s.load(from.add(i)), scale, shift));
                        sum = s.add(sum, e);
                        s.store_bf16(at, e);
                    } else {
                        let n = seen - i;
                        let e = math::exp2_rough(s, s.fma(s.load_n(from.add(i), n), scale, shift));
                        let mut lanes = [0f32; 16];
                        s.store_n(lanes.as_mut_ptr(), e, n);
                        let e = s.load(lanes.as_ptr());
                        sum = s.add(sum, e);
                        s.store_bf16(at, e);
                    }
                    i += S::LANES;
                }
                // What no key fills is zero, to the end of the last tile.
                let zero = s.splat(0.0);
                while i < steps * TILE_DEPTH {
                    s.store_bf16(to.add(i / TILE_DEPTH * TILE + i % TILE_DEPTH), zero);
                    i += S::LANES;
                }
                self.rescale.grow(s, row, now, s.sum(sum));
            }
        }
    }
}

impl Plan<'_> {
    /// Attention of some queries of one head on tiles.
    ///
    /// # Safety
    /// `from` and `to` are valid for the rows of the block; `keys` and `values` are packed in tiles.
    #[allow(clippy::too_many_arguments)]
    pub(super) unsafe fn tile_block<O: Lanes>(
        &self,
        tiles: Tiles,
        sequence: usize,
        rows: std::ops::Range<usize>,
        from: *const bf16,
        stride: usize,
        keys: *const bf16,
        values: *const bf16,
        to: *mut O,
    ) {
        let AttentionShape { heads, head_dim, .. } = self.shape;
        let kernels = self.kernels;
        let padded = rows.len().next_multiple_of(PAIR);
        let (depth_steps, key_steps) = (head_dim.div_ceil(TILE_DEPTH), self.shape.keys.div_ceil(TILE_DEPTH));
        let out_stride = head_dim.next_multiple_of(PANEL);
        // Two bf16 values to an f32 of scratch.
        let (query_len, weight_len) = (padded * depth_steps * TILE_DEPTH / 2, padded * KEYS / 2);
        let lengths = [query_len, weight_len, padded * SCORES, padded * out_stride, padded, padded];
        with_scratch(lengths.into_iter().map(line_up).sum(), |mut scratch| {
            let queries = carve(&mut scratch, query_len).as_mut_ptr().cast::<bf16>();
            let weights = carve(&mut scratch, weight_len).as_mut_ptr().cast::<bf16>();
            let scores = carve(&mut scratch, padded * SCORES);
            let out = carve(&mut scratch, padded * out_stride);
            let tops = &mut carve(&mut scratch, padded)[..rows.len()];
            let sums = &mut carve(&mut scratch, padded)[..rows.len()];
            tops.fill(f32::NEG_INFINITY);
            sums.fill(0.0);
            out.fill(0.0);
            kernels.dispatch(CopyQueries { from, stride, rows: rows.len(), head_dim, to: queries });
            let session = Session::new(tiles);
            let product = |row: usize| TileProduct {
                a: [queries; 2],
                b: keys,
                steps: depth_steps,
                c: std::ptr::null_mut(),
                c_stride: SCORES,
                two_rows: rows.len() - row > TILE_ROWS,
                two_columns: true,
                accumulate: false,
            };
            for start in (0..self.keys_seen(rows.end)).step_by(KEYS) {
                let block = start..self.keys_seen(rows.end).min(start + KEYS);
                for key in block.clone().step_by(PANEL) {
                    for row in (0..rows.len()).step_by(PAIR) {
                        let first = queries.add(row * depth_steps * TILE_DEPTH);
                        session.multiply(&TileProduct {
                            a: [first, first.add(depth_steps * TILE)],
                            b: keys.add(key / PANEL * depth_steps * 2 * TILE),
                            c: scores[row * SCORES + key - start..].as_mut_ptr(),
                            ..product(row)
                        });
                    }
                }
                if let Mask::Keys(allowed) = self.mask {
                    let allowed = &allowed[sequence * self.shape.keys..][block.clone()];
                    self.hide(scores, SCORES, rows.len(), allowed);
                }
                kernels.dispatch(TileSoftmax {
                    scores,
                    keys: block.clone(),
                    causal_from: self.causal_from(&rows),
                    scale: self.scale * std::f32::consts::LOG2_E,
                    weights,
                    rescale: Rescale { tops, sums, out, out_stride },
                });
                let steps = block.len().div_ceil(TILE_DEPTH);
                for column in (0..head_dim).step_by(PANEL) {
                    let panel = column / PANEL * key_steps + start / TILE_DEPTH;
                    for row in (0..rows.len()).step_by(PAIR) {
                        let first = weights.add(row * steps * TILE_DEPTH);
                        session.multiply(&TileProduct {
                            a: [first, first.add(steps * TILE)],
                            b: values.add(panel * 2 * TILE),
                            steps,
                            c: out[row * out_stride + column..].as_mut_ptr(),
                            c_stride: out_stride,
                            two_columns: head_dim - column > TILE_ROWS,
                            accumulate: true,
                            ..product(row)
                        });
                    }
                }
            }
            drop(session);
            kernels.dispatch(Divide { out, out_stride, sums, head_dim, to, stride: heads * head_dim });
        });
    }
}
