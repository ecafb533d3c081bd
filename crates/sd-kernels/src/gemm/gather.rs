//! Where the rows of A come from: a dense matrix, or the pixels under a convolution's window.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

use super::micro::A_STRIDE;
use crate::element::Lanes;
use crate::simd::{Kernel, Simd};

/// A matrix read row by row in runs that are consecutive in memory.
///
/// # Safety
/// For `row < rows()` and `k` below the depth of the product, `run` returns null or a pointer valid for the
/// returned length, which is at least 1 and does not reach beyond that depth.
pub(crate) unsafe trait Gather: Sync {
    /// Element type of the source.
    type Item: Lanes;
    /// What is worked out once for a row.
    type Row: Copy;
    /// Number of rows.
    fn rows(&self) -> usize;
    /// Prepares a row.
    fn row(&self, row: usize) -> Self::Row;
    /// The run that starts at depth `k`: where it lies (null: zeros), and how long it is.
    fn run(&self, row: Self::Row, k: usize) -> (*const Self::Item, usize);
}

/// Rows of a dense matrix.
pub(crate) struct Dense<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) rows: usize,
    pub(crate) depth: usize,
}

// SAFETY: `linear` checks that `data` holds `rows * depth` values.
unsafe impl<T: Lanes> Gather for Dense<'_, T> {
    type Item = T;
    type Row = *const T;
    fn rows(&self) -> usize {
        self.rows
    }
    #[inline(always)]
    fn row(&self, row: usize) -> *const T {
        self.data.as_ptr().wrapping_add(row * self.depth)
    }
    #[inline(always)]
    fn run(&self, row: *const T, k: usize) -> (*const T, usize) {
        (row.wrapping_add(k), self.depth - k)
    }
}

/// Copies a block of A to f32 rows `A_STRIDE` apart.
pub(crate) struct CopyBlock<'a, G> {
    pub(crate) source: &'a G,
    pub(crate) rows: std::ops::Range<usize>,
    pub(crate) depth: std::ops::Range<usize>,
    /// Writable for `rows.len() * A_STRIDE` values.
    pub(crate) to: *mut f32,
}

impl<G: Gather> Kernel for CopyBlock<'_, G> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (i, row) in self.rows.clone().enumerate() {
            let row = self.source.row(row);
            // SAFETY: `to` holds `A_STRIDE >= depth.len()` values for each row; the source vouches for its runs.
            unsafe {
                let to = self.to.add(i * A_STRIDE);
                let mut k = self.depth.start;
                while k < self.depth.end {
                    let (from, run) = self.source.run(row, k);
                    let run = run.min(self.depth.end - k);
                    copy(s, from, to.add(k - self.depth.start), run);
                    k += run;
                }
            }
        }
    }
}

/// Copies `n` values (zeros from null) and widens them to f32.
///
/// # Safety
/// `from`, unless null, and `to` are valid for `n` values.
#[inline(always)]
unsafe fn copy<S: Simd, T: Lanes>(s: S, from: *const T, to: *mut f32, n: usize) {
    let whole = n / S::LANES * S::LANES;
    let mut i = 0;
    if from.is_null() {
        while i < whole {
            s.store(to.add(i), s.splat(0.0));
            i += S::LANES;
        }
        s.store_n(to.add(i), s.splat(0.0), n - whole);
    } else {
        while i < whole {
            s.store(to.add(i), T::load(s, from.add(i)));
            i += S::LANES;
        }
        s.store_n(to.add(i), T::load_n(s, from.add(i), n - whole), n - whole);
    }
}
