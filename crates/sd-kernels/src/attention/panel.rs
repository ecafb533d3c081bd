//! The microkernel of attention on vectors: queries lie across the lanes, keys or a head's values down the rows.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

use crate::simd::Simd;

/// What a tile's sums begin with.
#[derive(Clone, Copy)]
pub(crate) enum Start {
    Zero,
    /// What C holds.
    Sums,
    /// What C holds, each column times its factor.
    Scaled(*const f32),
}

/// One tile of C = A * B: `R` rows by `NV` vectors, both packed tightly.
pub(crate) struct PanelTile {
    /// For each depth index `R` values.
    pub(crate) a: *const f32,
    /// For each depth index `NV` vectors.
    pub(crate) b: *const f32,
    /// Number of products summed for each element.
    pub(crate) depth: usize,
    /// `R` rows of `NV` vectors.
    pub(crate) c: *mut f32,
    pub(crate) start: Start,
}

/// Computes a tile. Each element is summed in the order of the depth index, so a column's result depends neither on
/// its neighbours nor on the tile's width.
///
/// # Safety
/// The pointers of `tile` are valid for its shape.
#[inline(always)]
pub(crate) unsafe fn panel_tile<S: Simd, const R: usize, const NV: usize>(s: S, tile: &PanelTile) {
    let mut sums = [[s.splat(0.0); NV]; R];
    let at = |i: usize, j: usize| tile.c.add((i * NV + j) * S::LANES);
    match tile.start {
        Start::Zero => {}
        Start::Sums => {
            for (i, row) in sums.iter_mut().enumerate() {
                for (j, sum) in row.iter_mut().enumerate() {
                    *sum = s.load(at(i, j));
                }
            }
        }
        Start::Scaled(factors) => {
            let mut columns = [s.splat(0.0); NV];
            for (j, column) in columns.iter_mut().enumerate() {
                *column = s.load(factors.add(j * S::LANES));
            }
            for (i, row) in sums.iter_mut().enumerate() {
                for (j, (sum, factor)) in row.iter_mut().zip(columns).enumerate() {
                    *sum = s.mul(s.load(at(i, j)), factor);
                }
            }
        }
    }
    let (mut a, mut b) = (tile.a, tile.b);
    for _ in 0..tile.depth {
        let mut columns = [s.splat(0.0); NV];
        for (j, column) in columns.iter_mut().enumerate() {
            *column = s.load(b.add(j * S::LANES));
        }
        for (i, row) in sums.iter_mut().enumerate() {
            let x = s.splat(*a.add(i));
            for (sum, column) in row.iter_mut().zip(columns) {
                *sum = s.fma(x, column, *sum);
            }
        }
        a = a.add(R);
        b = b.add(NV * S::LANES);
    }
    for (i, row) in sums.iter().enumerate() {
        for (j, sum) in row.iter().enumerate() {
            s.store(at(i, j), *sum);
        }
    }
}
