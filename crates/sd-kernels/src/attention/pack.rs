//! Queries, keys and values as the matrix microkernel reads them.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

use crate::element::Lanes;
use crate::gemm::micro::A_STRIDE;
use crate::simd::{Kernel, Simd};

/// Copies queries to rows `A_STRIDE` apart.
pub(super) struct CopyQueries<T> {
    pub(super) from: *const T,
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) to: *mut f32,
}

impl<T: Lanes> Kernel for CopyQueries<T> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for row in 0..self.rows {
            // SAFETY: the caller vouches for `rows` rows of `width` values on both sides.
            unsafe { copy(s, self.from.add(row * self.stride), self.to.add(row * A_STRIDE), self.width) };
        }
    }
}

/// Packs the keys of a head, transposed: panels of two vectors of keys, `[panel][head_dim][key]`.
pub(super) struct PackKeys<T> {
    pub(super) from: *const T,
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) head_dim: usize,
    pub(super) to: *mut f32,
}

impl<T: Lanes> Kernel for PackKeys<T> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = 2 * S::LANES;
        for first in (0..self.rows).step_by(width) {
            let rows = self.rows - first;
            let step = if rows <= S::LANES { S::LANES } else { width };
            // SAFETY: the caller vouches for the rows and for room for whole panels.
            unsafe {
                let to = self.to.add(first * self.head_dim);
                for j in 0..step {
                    let mut d = 0;
                    while d < self.head_dim {
                        let n = (self.head_dim - d).min(S::LANES);
                        let mut values = [0f32; 16];
                        if j < rows {
                            let from = self.from.add((first + j) * self.stride + d);
                            s.store(values.as_mut_ptr(), T::load_n(s, from, n));
                        }
                        for (i, value) in values.iter().enumerate().take(n) {
                            *to.add((d + i) * step + j) = *value;
                        }
                        d += n;
                    }
                }
            }
        }
    }
}

/// Packs the values of a head: panels of two vectors of the head, `[panel][key][dim]`.
pub(super) struct PackValues<T> {
    pub(super) from: *const T,
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) head_dim: usize,
    pub(super) to: *mut f32,
}

impl<T: Lanes> Kernel for PackValues<T> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = 2 * S::LANES;
        for first in (0..self.head_dim).step_by(width) {
            let columns = self.head_dim - first;
            let step = if columns <= S::LANES { S::LANES } else { width };
            for row in 0..self.rows {
                // SAFETY: the caller vouches for the rows and for room for whole panels.
                unsafe {
                    let from = self.from.add(row * self.stride + first);
                    let to = self.to.add(first * self.rows + row * step);
                    for j in (0..step).step_by(S::LANES) {
                        let n = columns.saturating_sub(j).min(S::LANES);
                        s.store(to.add(j), T::load_n(s, from.wrapping_add(j), n));
                    }
                }
            }
        }
    }
}

/// Copies `n` values and widens them.
///
/// # Safety
/// Both pointers are valid for `n` values.
#[inline(always)]
unsafe fn copy<S: Simd, T: Lanes>(s: S, from: *const T, to: *mut f32, n: usize) {
    let mut i = 0;
    while i + S::LANES <= n {
        s.store(to.add(i), T::load(s, from.add(i)));
        i += S::LANES;
    }
    s.store_n(to.add(i), T::load_n(s, from.add(i), n - i), n - i);
}
