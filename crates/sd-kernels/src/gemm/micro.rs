//! The matrix microkernel: a tile of C, a few rows by two vectors, kept in registers over the whole depth.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

use crate::element::Lanes;
use crate::simd::{Kernel, Simd};

/// The most values of a row of A that one tile call goes through.
pub(crate) const DEPTH: usize = 384;
/// Distance between rows of A in f32 values. Constant, so that a row's address is one register and a
/// displacement; an odd number of cache lines, so that the rows of a tile spread over the cache's sets.
pub(crate) const A_STRIDE: usize = DEPTH + 16;

/// One tile of C = A * B, optionally added to what C holds. Rows of A are `STRIDE` values apart.
pub(crate) struct Tile<W, const STRIDE: usize> {
    /// Rows of A, each `depth` long; readable for the kernel's full number of rows.
    pub(crate) a: *const f32,
    /// A panel of B: for each depth index `NV * LANES` consecutive columns.
    pub(crate) b: *const W,
    /// Number of products summed for each element.
    pub(crate) depth: usize,
    /// C, row-major with stride `c_stride`; writable for the kernel's full number of rows.
    pub(crate) c: *mut f32,
    /// Distance between rows of C.
    pub(crate) c_stride: usize,
    /// Rows that matter; the kernel may compute more.
    pub(crate) rows: usize,
    /// Memory that is read next, brought nearer meanwhile; never followed, so any address will do.
    pub(crate) next: *const u8,
    /// How far that goes on with each depth index, in bytes.
    pub(crate) next_step: usize,
    /// Start from what C holds instead of zero.
    pub(crate) accumulate: bool,
}

impl<W, const STRIDE: usize> Tile<W, STRIDE> {
    /// The same tile with another panel of B.
    pub(crate) fn with_b<B>(self, b: *const B) -> Tile<B, STRIDE> {
        let Self { a, b: _, depth, c, c_stride, rows, next, next_step, accumulate } = self;
        Tile { a, b, depth, c, c_stride, rows, next, next_step, accumulate }
    }
}

/// Copies weights as f32.
pub(crate) struct Widen<'a, W> {
    pub(crate) from: &'a [W],
    /// As long as `from`.
    pub(crate) to: &'a mut [f32],
}

impl<W: Lanes> Kernel for Widen<'_, W> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (from, to) in self.from.chunks(S::LANES).zip(self.to.chunks_mut(S::LANES)) {
            // SAFETY: both chunks have as many values.
            unsafe { s.store_n(to.as_mut_ptr(), W::load_n(s, from.as_ptr(), to.len()), to.len()) };
        }
    }
}

/// Computes `R` rows by `NV` vectors. Each element is summed in the order of the depth index, whatever the
/// tile's shape: so a row's result never depends on the rows beside it.
///
/// # Safety
/// As [`Simd::tile`]: `tile`'s pointers are valid for `R` rows.
#[inline(always)]
pub(crate) unsafe fn tile_rows<S: Simd, W: Lanes, const R: usize, const NV: usize, const STRIDE: usize>(
    s: S,
    tile: &Tile<W, STRIDE>,
) {
    let mut sums = [[s.splat(0.0); NV]; R];
    if tile.accumulate {
        for (i, row) in sums.iter_mut().enumerate() {
            for (j, sum) in row.iter_mut().enumerate() {
                *sum = s.load(tile.c.add(i * tile.c_stride + j * S::LANES));
            }
        }
    }
    let (mut a, mut b, mut next) = (tile.a, tile.b, tile.next);
    for _ in 0..tile.depth {
        s.prefetch(next);
        next = next.wrapping_add(tile.next_step);
        let mut columns = [s.splat(0.0); NV];
        for (j, column) in columns.iter_mut().enumerate() {
            *column = W::load(s, b.add(j * S::LANES));
        }
        for (i, row) in sums.iter_mut().enumerate() {
            let x = s.splat(*a.add(i * STRIDE));
            for (sum, column) in row.iter_mut().zip(columns) {
                *sum = s.fma(x, column, *sum);
            }
        }
        a = a.add(1);
        b = b.add(NV * S::LANES);
    }
    for (i, row) in sums.iter().enumerate() {
        for (j, sum) in row.iter().enumerate() {
            s.store(tile.c.add(i * tile.c_stride + j * S::LANES), *sum);
        }
    }
}

/// A tile as a dispatchable kernel: two vectors wide, or one if `narrow`.
pub(crate) struct RunTile<W, const STRIDE: usize> {
    pub(crate) tile: Tile<W, STRIDE>,
    pub(crate) narrow: bool,
}

impl<W: Lanes, const STRIDE: usize> Kernel for RunTile<W, STRIDE> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: whoever built the tile vouches for its pointers.
        unsafe {
            if self.narrow {
                s.tile::<W, 1, STRIDE>(&self.tile);
            } else {
                s.tile::<W, 2, STRIDE>(&self.tile);
            }
        }
    }
}
