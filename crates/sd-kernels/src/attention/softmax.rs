//! The softmax of attention on matrix tiles, over one block of keys after another, in powers of two.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

use crate::element::Lanes;
use crate::simd::{Kernel, Simd, math};

/// What each row of a block has summed so far.
pub(super) struct Rescale<'a> {
    /// Each row's greatest scaled score.
    pub(super) tops: &'a mut [f32],
    /// Each row's sum of weights.
    pub(super) sums: &'a mut [f32],
    /// Each row's sum of weighted values.
    pub(super) out: &'a mut [f32],
    pub(super) out_stride: usize,
}

impl Rescale<'_> {
    /// Number of rows.
    #[inline(always)]
    pub(super) fn rows(&self) -> usize {
        self.tops.len()
    }

    /// The greatest score of a row, given that of its new block. Finite if all scores are, or all are masked.
    #[inline(always)]
    pub(super) fn top(&self, row: usize, block: f32) -> f32 {
        let top = self.tops[row].max(block);
        // All masked so far: any finite shift gives weights of zero.
        if top == f32::NEG_INFINITY { 0.0 } else { top }
    }

    /// Scales what the row has summed to its new greatest score and adds the block's weights.
    ///
    /// # Safety
    /// `out_stride` is a multiple of the vector's lanes.
    #[inline(always)]
    pub(super) unsafe fn grow<S: Simd>(&mut self, s: S, row: usize, top: f32, weights: f32) {
        let before = self.tops[row];
        if before != top {
            let mut lanes = [0f32; 16];
            s.store(lanes.as_mut_ptr(), math::exp2(s, s.splat(before - top)));
            let factor = s.splat(lanes[0]);
            let out = self.out[row * self.out_stride..][..self.out_stride].as_mut_ptr();
            for i in (0..self.out_stride).step_by(S::LANES) {
                s.store(out.add(i), s.mul(s.load(out.add(i)), factor));
            }
            self.sums[row] *= lanes[0];
            self.tops[row] = top;
        }
        self.sums[row] += weights;
    }
}

/// The greatest value; NaN may be skipped, since the weights' sum will show it.
///
/// # Safety
/// None beyond the slice's own.
#[inline(always)]
pub(super) unsafe fn greatest<S: Simd>(s: S, scores: &[f32]) -> f32 {
    let whole = scores.len() / S::LANES * S::LANES;
    let p = scores.as_ptr();
    let mut top = s.splat(f32::NEG_INFINITY);
    for i in (0..whole).step_by(S::LANES) {
        top = s.max(top, s.load(p.add(i)));
    }
    scores[whole..].iter().fold(s.greatest(top), |top, score| top.max(*score))
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
