//! Attention in f32 on vectors.
//!
//! A block's queries lie across the lanes: scores are (keys, queries) and sums are (values of the head, queries). So a
//! head of any size fills the vectors, and the softmax goes down the lanes without ever adding across them.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

use super::panel::{PanelTile, Start};
use super::{AttentionShape, Mask, Plan, Rows};
use crate::buffer::{carve, line_up, with_scratch, with_shared_scratch};
use crate::element::{Element, Lanes};
use crate::parallel::{self, Shared};
use crate::simd::{Kernel, Simd, math};

/// Keys between two rescalings: with a block's queries, scores that fit the first cache.
const KEYS: usize = 128;
/// Values of a head that are multiplied at once, so that the queries' part stays in the first cache.
const DEPTH: usize = 160;

impl Plan<'_> {
    /// Packs keys and values, then takes the queries block by block.
    ///
    /// # Safety
    /// The views and the output fit the shape.
    pub(super) unsafe fn run_on_vectors<I: Element, O: Element>(
        &self,
        q: Rows<'_, I>,
        k: Rows<'_, I>,
        v: Rows<'_, I>,
        output: &mut [O],
    ) {
        let AttentionShape { batch, heads, queries, keys, head_dim } = self.shape;
        let (kernels, width) = (self.kernels, heads * head_dim);
        let (height, lanes) = (kernels.panel_height(), kernels.lanes());
        let key_len = line_up(keys.next_multiple_of(height) * head_dim);
        let len = key_len + line_up(head_dim.next_multiple_of(height) * keys);
        // Blocks of about the same size, so that the last is not mostly padding.
        let blocks = queries.div_ceil(kernels.panel_vectors() * lanes);
        let block = queries.div_ceil(blocks).next_multiple_of(lanes);
        let blocks = queries.div_ceil(block);
        with_shared_scratch(batch * heads * len, |scratch| {
            let packed = Shared(scratch.as_mut_ptr());
            parallel::for_each(batch * heads, |head| {
                let (sequence, head_at) = (head / heads * keys, head % heads * head_dim);
                // SAFETY: each task fills its own `len` values; the views were checked.
                unsafe {
                    let to = packed.at(head * len);
                    let from = k.data.as_ptr().wrapping_add(sequence * k.stride + head_at);
                    kernels.dispatch(PackKeys { from, stride: k.stride, rows: keys, head_dim, to });
                    let from = v.data.as_ptr().wrapping_add(sequence * v.stride + head_at);
                    let to = to.add(key_len);
                    kernels.dispatch(PackValues { from, stride: v.stride, rows: keys, head_dim, to });
                }
            });
            let (packed, output) = (&*scratch, Shared(output.as_mut_ptr()));
            parallel::for_each(batch * heads * blocks, |task| {
                let (head, index) = (task / blocks, task % blocks);
                let (keys, values) = packed[head * len..(head + 1) * len].split_at(key_len);
                let (sequence, head_at) = (head / heads * queries, head % heads * head_dim);
                let rows = index * block..queries.min((index + 1) * block);
                let first = sequence + rows.start;
                let from = q.data.as_ptr().wrapping_add(first * q.stride + head_at);
                let to = output.at(first * width + head_at);
                // SAFETY: the views were checked; the blocks of queries and heads do not overlap.
                unsafe { self.vector_block(head / heads, rows, from, q.stride, keys, values, to) };
            });
        });
    }

    /// Attention of some queries of one head.
    ///
    /// # Safety
    /// `from` and `to` are valid for the rows of the block; `keys` and `values` are packed.
    #[allow(clippy::too_many_arguments)]
    unsafe fn vector_block<I: Element, O: Element>(
        &self,
        sequence: usize,
        rows: std::ops::Range<usize>,
        from: *const I,
        stride: usize,
        keys: &[f32],
        values: &[f32],
        to: *mut O,
    ) {
        let AttentionShape { heads, head_dim, .. } = self.shape;
        let kernels = self.kernels;
        let height = kernels.panel_height();
        let columns = rows.len().next_multiple_of(kernels.lanes());
        let (query_len, out_len) = (head_dim * columns, head_dim.next_multiple_of(height) * columns);
        let score_len = KEYS.next_multiple_of(height) * columns;
        let total = [query_len, out_len, score_len, columns, columns, columns].map(line_up).iter().sum();
        with_scratch(total, |mut scratch| {
            let queries = carve(&mut scratch, query_len);
            let out = carve(&mut scratch, out_len);
            let scores = carve(&mut scratch, score_len);
            let tops = carve(&mut scratch, columns);
            let sums = &mut carve(&mut scratch, columns)[..columns];
            let factors = carve(&mut scratch, columns);
            let scale = self.scale * std::f32::consts::LOG2_E;
            let to_columns = queries.as_mut_ptr();
            let (count, columns) = (rows.len(), columns);
            kernels.dispatch(Turn { from, stride, rows: count, columns, head_dim, scale, to: to_columns });
            out.fill(0.0);
            sums.fill(0.0);
            // Below every score, and finite: a query that sees nothing gets weights of zero.
            tops.fill(f32::MIN);
            kernels.dispatch(Attend {
                columns,
                head_dim,
                all_keys: self.shape.keys,
                seen: self.keys_seen(rows.end),
                causal_from: self.causal_from(&rows),
                allowed: match self.mask {
                    Mask::Keys(allowed) => Some(&allowed[sequence * self.shape.keys..]),
                    Mask::None | Mask::Causal => None,
                },
                queries,
                keys,
                values,
                scores,
                tops,
                sums,
                factors,
                out,
            });
            kernels.dispatch(Finish { out, sums, rows: count, head_dim, to, stride: heads * head_dim });
        });
    }
}

/// Packs the keys of a head in panels: `[panel][head_dim][key]`. Keys that do not exist are zero.
struct PackKeys<T> {
    from: *const T,
    stride: usize,
    rows: usize,
    head_dim: usize,
    to: *mut f32,
}

impl<T: Lanes> Kernel for PackKeys<T> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let height = S::PANEL_HEIGHT;
        for first in (0..self.rows).step_by(height) {
            for j in 0..height {
                // SAFETY: the caller vouches for the rows and for room for whole panels.
                unsafe {
                    let to = self.to.add(first * self.head_dim + j);
                    if first + j < self.rows {
                        let from = self.from.add((first + j) * self.stride);
                        spread(s, from, self.head_dim, 1.0, to, height);
                    } else {
                        (0..self.head_dim).for_each(|d| *to.add(d * height) = 0.0);
                    }
                }
            }
        }
    }
}

/// Packs the values of a head in panels: `[panel][key][value]`. Values beyond the head are zero.
struct PackValues<T> {
    from: *const T,
    stride: usize,
    rows: usize,
    head_dim: usize,
    to: *mut f32,
}

impl<T: Lanes> Kernel for PackValues<T> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let height = S::PANEL_HEIGHT;
        for first in (0..self.head_dim).step_by(height) {
            for row in 0..self.rows {
                for i in (0..height).step_by(S::LANES) {
                    let n = S::LANES.min(height - i);
                    let there = self.head_dim.saturating_sub(first + i).min(n);
                    // SAFETY: the caller vouches for the rows and for room for whole panels.
                    unsafe {
                        let from = self.from.wrapping_add(row * self.stride + first + i);
                        let to = self.to.add((first * self.rows) + row * height + i);
                        s.store_n(to, T::load_n(s, from, there), n);
                    }
                }
            }
        }
    }
}

/// Turns queries to columns and scales them: `[head_dim][query]`. Queries that do not exist are zero.
struct Turn<T> {
    from: *const T,
    stride: usize,
    rows: usize,
    columns: usize,
    head_dim: usize,
    scale: f32,
    to: *mut f32,
}

impl<T: Lanes> Kernel for Turn<T> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for column in 0..self.columns {
            // SAFETY: the caller vouches for the rows and for room for all columns.
            unsafe {
                let to = self.to.add(column);
                if column < self.rows {
                    let from = self.from.add(column * self.stride);
                    spread(s, from, self.head_dim, self.scale, to, self.columns);
                } else {
                    (0..self.head_dim).for_each(|d| *to.add(d * self.columns) = 0.0);
                }
            }
        }
    }
}

/// Copies `n` values times `scale` to places `step` apart.
///
/// # Safety
/// `from` is valid for `n` values, `to` for `n` places.
#[inline(always)]
unsafe fn spread<S: Simd, T: Lanes>(s: S, from: *const T, n: usize, scale: f32, to: *mut f32, step: usize) {
    for first in (0..n).step_by(S::LANES) {
        let count = S::LANES.min(n - first);
        let mut values = [0f32; 16];
        let scaled = s.mul(T::load_n(s, from.add(first), count), s.splat(scale));
        s.store(values.as_mut_ptr(), scaled);
        for (i, value) in values.iter().enumerate().take(count) {
            *to.add((first + i) * step) = *value;
        }
    }
}

/// All keys for one block of queries.
struct Attend<'a> {
    /// Queries, filled up to whole vectors.
    columns: usize,
    head_dim: usize,
    /// Keys that are packed.
    all_keys: usize,
    /// Keys that some query of the block may see.
    seen: usize,
    /// The first query's position, if a query sees no later keys.
    causal_from: Option<usize>,
    /// Which keys may be seen at all.
    allowed: Option<&'a [bool]>,
    /// `[head_dim][query]`, scaled so that weights are powers of two.
    queries: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    /// `[key][query]` of the keys at hand: scores, then weights.
    scores: &'a mut [f32],
    /// Each query's greatest score so far.
    tops: &'a mut [f32],
    /// Each query's sum of weights so far.
    sums: &'a mut [f32],
    /// What the last keys' greatest scores made of earlier weights.
    factors: &'a mut [f32],
    /// `[value of the head][query]`: sums of weighted values so far.
    out: &'a mut [f32],
}

impl Kernel for Attend<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        // SAFETY: the slices are as long as the shapes say.
        unsafe {
            match self.columns / S::LANES {
                1 => self.run_by::<S, 1>(s),
                2 => self.run_by::<S, 2>(s),
                _ => self.run_by::<S, 3>(s),
            }
        }
    }
}

impl Attend<'_> {
    /// # Safety
    /// The slices are as long as the shapes say, with `NV` vectors of columns.
    #[inline(always)]
    unsafe fn run_by<S: Simd, const NV: usize>(&mut self, s: S) {
        for start in (0..self.seen).step_by(KEYS) {
            let keys = start..self.seen.min(start + KEYS);
            self.score::<S, NV>(s, keys.clone());
            self.hide(keys.clone());
            self.weigh::<S, NV>(s, keys.len());
            self.sum_up::<S, NV>(s, keys);
        }
    }

    /// Scores of some keys.
    #[inline(always)]
    unsafe fn score<S: Simd, const NV: usize>(&mut self, s: S, keys: std::ops::Range<usize>) {
        let columns = NV * S::LANES;
        for from in (0..self.head_dim).step_by(DEPTH) {
            let depth = DEPTH.min(self.head_dim - from);
            for key in keys.clone().step_by(S::PANEL_HEIGHT) {
                let a = &self.keys[key * self.head_dim + from * S::PANEL_HEIGHT..];
                let scores = &mut self.scores[(key - keys.start) * columns..];
                s.panel_tile::<NV>(&PanelTile {
                    a: a.as_ptr(),
                    b: self.queries[from * columns..].as_ptr(),
                    depth,
                    c: scores.as_mut_ptr(),
                    start: if from == 0 { Start::Zero } else { Start::Sums },
                });
            }
        }
    }

    /// Takes away what must not be seen.
    #[inline(always)]
    fn hide(&mut self, keys: std::ops::Range<usize>) {
        if self.allowed.is_none() && self.causal_from.is_none() {
            return;
        }
        for (key, scores) in keys.zip(self.scores.chunks_exact_mut(self.columns)) {
            let hidden = match (self.allowed, self.causal_from) {
                (Some(allowed), _) if !allowed[key] => self.columns,
                (_, Some(first)) => key.saturating_sub(first).min(self.columns),
                _ => 0,
            };
            scores[..hidden].fill(f32::NEG_INFINITY);
        }
    }

    /// Turns scores into weights relative to each query's greatest score so far.
    #[inline(always)]
    unsafe fn weigh<S: Simd, const NV: usize>(&mut self, s: S, keys: usize) {
        let columns = NV * S::LANES;
        let scores = self.scores.as_mut_ptr();
        for j in 0..NV {
            let at = j * S::LANES;
            let (tops, sums) = (self.tops[at..].as_mut_ptr(), self.sums[at..].as_mut_ptr());
            let before = s.load(tops);
            // Several at a time, since each waits for its last. Never NaN: the weights' sum will show that.
            let mut greatest = [before; 4];
            for key in (0..keys).step_by(4) {
                for (i, top) in greatest.iter_mut().enumerate() {
                    let key = (key + i).min(keys - 1);
                    *top = s.max(s.load(scores.add(key * columns + at)), *top);
                }
            }
            let [a, b, c, d] = greatest;
            let now = s.max(s.max(a, b), s.max(c, d));
            s.store(tops, now);
            let factor = math::exp2_of_negative(s, s.sub(before, now));
            s.store(self.factors[at..].as_mut_ptr(), factor);
            let mut sum = s.mul(s.load(sums), factor);
            for key in 0..keys {
                let score = scores.add(key * columns + at);
                let weight = math::exp2_of_negative(s, s.sub(s.load(score), now));
                s.store(score, weight);
                sum = s.add(sum, weight);
            }
            s.store(sums, sum);
        }
    }

    /// Adds the weighted values of some keys.
    #[inline(always)]
    unsafe fn sum_up<S: Simd, const NV: usize>(&mut self, s: S, keys: std::ops::Range<usize>) {
        for value in (0..self.head_dim).step_by(S::PANEL_HEIGHT) {
            let a = &self.values[value * self.all_keys + keys.start * S::PANEL_HEIGHT..];
            s.panel_tile::<NV>(&PanelTile {
                a: a.as_ptr(),
                b: self.scores.as_ptr(),
                depth: keys.len(),
                c: self.out[value * NV * S::LANES..].as_mut_ptr(),
                start: Start::Scaled(self.factors.as_ptr()),
            });
        }
    }
}

/// Divides by the sums of weights and writes the queries out as rows.
struct Finish<'a, O> {
    out: &'a [f32],
    sums: &'a [f32],
    rows: usize,
    head_dim: usize,
    to: *mut O,
    stride: usize,
}

impl<O: Lanes> Kernel for Finish<'_, O> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let columns = self.sums.len();
        for (row, sum) in self.sums.iter().enumerate().take(self.rows) {
            // A query that saw no key has a sum of zero and gives zeros.
            let factor = s.splat(if *sum == 0.0 { 0.0 } else { 1.0 / sum });
            for first in (0..self.head_dim).step_by(S::LANES) {
                let n = S::LANES.min(self.head_dim - first);
                let mut values = [0f32; 16];
                for (i, value) in values.iter_mut().enumerate().take(n) {
                    *value = self.out[(first + i) * columns + row];
                }
                // SAFETY: the caller vouches for rows of `head_dim` values, `stride` apart.
                unsafe {
                    let to = self.to.add(row * self.stride + first);
                    O::store_n(s, to, s.mul(s.load(values.as_ptr()), factor), n);
                }
            }
        }
    }
}
