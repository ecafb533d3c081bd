//! The portable set's matrix microkernel on aarch64: NEON, which every such processor has, multiplies a vector by one
//! lane of another. The compiler does that with plain arrays too, but loads each lane by itself, and the loads then
//! take longer than the products.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

use std::arch::aarch64::{float32x4_t, vdupq_n_f32, vfmaq_laneq_f32, vld1q_f32, vst1q_f32};

use super::Simd;
use super::portable::Portable;
use crate::element::Lanes;
use crate::gemm::micro::{Tile, tile_rows};

const LANES: usize = Portable::LANES;

/// Computes what [`tile_rows`] does, in the same order.
///
/// # Safety
/// As [`tile_rows`].
#[inline(always)]
pub(super) unsafe fn tile<W: Lanes, const R: usize, const NV: usize, const STRIDE: usize>(
    s: Portable,
    tile: &Tile<W, STRIDE>,
) {
    let whole = tile.depth / LANES * LANES;
    let mut sums = [[vdupq_n_f32(0.0); NV]; R];
    if tile.accumulate {
        for (i, row) in sums.iter_mut().enumerate() {
            for (j, sum) in row.iter_mut().enumerate() {
                *sum = vld1q_f32(tile.c.add(i * tile.c_stride + j * LANES));
            }
        }
    }
    for k in (0..whole).step_by(LANES) {
        let rows = std::array::from_fn(|i| vld1q_f32(tile.a.add(i * STRIDE + k)));
        let columns = tile.b.add(k * NV * LANES);
        step::<W, R, NV, 0>(s, &mut sums, &rows, columns);
        step::<W, R, NV, 1>(s, &mut sums, &rows, columns.add(NV * LANES));
        step::<W, R, NV, 2>(s, &mut sums, &rows, columns.add(2 * NV * LANES));
        step::<W, R, NV, 3>(s, &mut sums, &rows, columns.add(3 * NV * LANES));
    }
    for (i, row) in sums.iter().enumerate() {
        for (j, sum) in row.iter().enumerate() {
            vst1q_f32(tile.c.add(i * tile.c_stride + j * LANES), *sum);
        }
    }
    if whole < tile.depth {
        let (a, b) = (tile.a.add(whole), tile.b.add(whole * NV * LANES));
        let rest = Tile { a, b, depth: tile.depth - whole, accumulate: true, ..*tile };
        tile_rows::<Portable, W, R, NV, STRIDE>(s, &rest);
    }
}

/// Adds the products of one depth index: that of lane `LANE` of the rows.
///
/// # Safety
/// `columns` is valid for `NV` vectors.
#[inline(always)]
unsafe fn step<W: Lanes, const R: usize, const NV: usize, const LANE: i32>(
    s: Portable,
    sums: &mut [[float32x4_t; NV]; R],
    rows: &[float32x4_t; R],
    columns: *const W,
) {
    let columns: [_; NV] = std::array::from_fn(|j| vld1q_f32(W::load(s, columns.add(j * LANES)).as_ptr()));
    for (sums, row) in sums.iter_mut().zip(rows) {
        for (sum, column) in sums.iter_mut().zip(columns) {
            *sum = vfmaq_laneq_f32::<LANE>(*sum, column, *row);
        }
    }
}
