//! The softmax of attention, over one block of keys after another.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

use crate::element::Lanes;
use crate::gemm::micro::A_STRIDE;
use crate::simd::{Kernel, Simd, math};

/// Turns a block's scores into weights relative to each row's greatest score so far, and scales what the row
/// has summed when that grows.
pub(super) struct OnlineSoftmax<'a> {
    /// Rows `A_STRIDE` apart; becomes `exp(scale * score - top)`.
    pub(super) scores: &'a mut [f32],
    /// The block's keys.
    pub(super) keys: std::ops::Range<usize>,
    /// The first row's position, if a query sees no later keys.
    pub(super) causal_from: Option<usize>,
    pub(super) scale: f32,
    /// Each row's greatest scaled score.
    pub(super) tops: &'a mut [f32],
    /// Each row's sum of weights.
    pub(super) sums: &'a mut [f32],
    /// Each row's sum of weighted values.
    pub(super) out: &'a mut [f32],
    pub(super) out_stride: usize,
}

impl Kernel for OnlineSoftmax<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let scale = s.splat(self.scale);
        for row in 0..self.tops.len() {
            let scores = &mut self.scores[row * A_STRIDE..][..self.keys.len()];
            let seen = match self.causal_from {
                Some(first) => (first + row + 1).saturating_sub(self.keys.start).min(scores.len()),
                None => scores.len(),
            };
            let (scores, hidden) = scores.split_at_mut(seen);
            hidden.fill(0.0);
            if seen == 0 {
                continue;
            }
            let whole = seen / S::LANES * S::LANES;
            let n = seen - whole;
            let p = scores.as_mut_ptr();
            // SAFETY: every access is within `scores` or within the row of `out`.
            unsafe {
                let mut top = s.splat(f32::NEG_INFINITY);
                for i in (0..whole).step_by(S::LANES) {
                    top = s.max(top, s.load(p.add(i)));
                }
                let mut greatest = s.greatest(top);
                for score in &scores[whole..] {
                    greatest = greatest.max(*score);
                }
                let before = self.tops[row];
                let mut now = before.max(greatest * self.scale);
                if now == f32::NEG_INFINITY {
                    // All masked so far: any finite shift gives weights of zero.
                    now = 0.0;
                }
                let shift = s.splat(-now);
                let mut sum = s.splat(0.0);
                for i in (0..whole).step_by(S::LANES) {
                    let e = math::exp(s, s.fma(s.load(p.add(i)), scale, shift));
                    s.store(p.add(i), e);
                    sum = s.add(sum, e);
                }
                let mut total = s.sum(sum);
                let e = math::exp(s, s.fma(s.load_n(p.add(whole), n), scale, shift));
                s.store_n(p.add(whole), e, n);
                for weight in &scores[whole..] {
                    total += *weight;
                }
                if before != now {
                    let mut factor = [0f32; 16];
                    s.store(factor.as_mut_ptr(), math::exp(s, s.splat(before - now)));
                    let out = self.out[row * self.out_stride..][..self.out_stride].as_mut_ptr();
                    for i in (0..self.out_stride).step_by(S::LANES) {
                        s.store(out.add(i), s.mul(s.load(out.add(i)), s.splat(factor[0])));
                    }
                    self.sums[row] *= factor[0];
                    self.tops[row] = now;
                }
                self.sums[row] += total;
            }
        }
    }
}

/// Divides by the sums of weights and writes the rows out.
pub(super) struct Divide<'a, O> {
    pub(super) out: &'a [f32],
    pub(super) out_stride: usize,
    pub(super) sums: &'a [f32],
    pub(super) head_dim: usize,
    pub(super) to: *mut O,
    pub(super) stride: usize,
}

impl<O: Lanes> Kernel for Divide<'_, O> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (row, sum) in self.sums.iter().enumerate() {
            // A row that saw no key has a sum of zero and gives zeros.
            let factor = s.splat(if *sum == 0.0 { 0.0 } else { 1.0 / sum });
            let from = self.out[row * self.out_stride..][..self.out_stride].as_ptr();
            // SAFETY: the caller vouches for rows of `head_dim` values, `stride` apart.
            unsafe {
                let to = self.to.add(row * self.stride);
                let mut i = 0;
                while i < self.head_dim {
                    let n = (self.head_dim - i).min(S::LANES);
                    O::store_n(s, to.add(i), s.mul(s.load(from.add(i)), factor), n);
                    i += n;
                }
            }
        }
    }
}
