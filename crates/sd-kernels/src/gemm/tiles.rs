//! Matrix products in bf16 on matrix tiles.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

use half::bf16;

use super::Block;
use super::epilogue::{Finish, Target};
use super::gather::Gather;
use super::pack::PackedB;
use crate::amx::{PANEL, Session, TILE, TILE_DEPTH, TILE_ROWS, TileProduct, Tiles};
use crate::buffer::{carve, line_up, with_scratch};
use crate::element::Lanes;
use crate::simd::{Kernel, Simd};

/// Rows of A that a task copies and keeps in cache.
pub(super) const BLOCK_ROWS: usize = 256;
/// The most depth between two passes over a block's sums: A's and B's shares of a block lie in the first cache.
const DEPTH: usize = 512;

/// Computes one block of the product.
///
/// # Safety
/// As [`super::multiply`], and no other thread writes the block.
pub(super) unsafe fn multiply_block<G: Gather, O: Lanes>(
    a: &G,
    b: &PackedB,
    weights: &[bf16],
    tiles: Tiles,
    target: &Target<'_, O>,
    block: &Block,
) {
    let kernels = b.kernels;
    // Sums are made for two tiles' rows at once.
    const PAIR: usize = 2 * TILE_ROWS;
    const SUMS: usize = PAIR * PANEL;
    let pairs = block.rows.len().div_ceil(PAIR);
    let all_steps = b.k.div_ceil(TILE_DEPTH);
    let passes = all_steps.div_ceil(DEPTH / TILE_DEPTH).max(1);
    let steps = all_steps.div_ceil(passes);
    let slots = if passes == 1 { 1 } else { pairs * block.panels.len() };
    // Two bf16 values to an f32 of scratch.
    let copy_len = pairs * 2 * steps * TILE / 2;
    with_scratch(line_up(copy_len) + slots * SUMS, |mut scratch| {
        let copy = carve(&mut scratch, copy_len).as_mut_ptr().cast::<bf16>();
        let sums = carve(&mut scratch, slots * SUMS);
        let session = Session::new(tiles);
        for pass in 0..passes {
            let pass_steps = pass * steps..all_steps.min((pass + 1) * steps);
            let depth = pass_steps.start * TILE_DEPTH..b.k.min(pass_steps.end * TILE_DEPTH);
            kernels.dispatch(CopyTiles { source: a, rows: block.rows.clone(), depth, to: copy });
            let row_len = pass_steps.len() * TILE;
            for (p, panel) in block.panels.clone().enumerate() {
                let from = (panel * all_steps + pass_steps.start) * 2 * TILE;
                let panel_weights = &weights[from..from + 2 * row_len];
                let first = panel * b.panel_outputs();
                let columns = first..b.outputs().min(first + b.panel_outputs());
                for (t, row) in block.rows.clone().step_by(PAIR).enumerate() {
                    let slot = if passes == 1 { 0 } else { p * pairs + t };
                    let tile_sums = &mut sums[slot * SUMS..(slot + 1) * SUMS];
                    let rows = row..block.rows.end.min(row + PAIR);
                    session.multiply(&TileProduct {
                        a: [copy.add(2 * t * row_len), copy.add((2 * t + 1) * row_len)],
                        b: panel_weights.as_ptr(),
                        steps: pass_steps.len(),
                        c: tile_sums.as_mut_ptr(),
                        c_stride: PANEL,
                        two_rows: rows.len() > TILE_ROWS,
                        two_columns: !b.narrow(panel),
                        accumulate: pass > 0,
                    });
                    if pass + 1 == passes {
                        kernels.dispatch(Finish {
                            target,
                            sums: tile_sums.as_ptr(),
                            sums_stride: PANEL,
                            gates: PANEL / 2,
                            rows,
                            columns: columns.clone(),
                            bias: b.bias(panel),
                        });
                    }
                }
            }
        }
    });
}

/// Copies a block of A, rounded to bf16, to tiles: for each 16 rows, one tile for each 32 values of depth. Values
/// beyond the depth are zero; rows beyond the last keep what was there, and nothing reads their sums.
struct CopyTiles<'a, G> {
    source: &'a G,
    rows: std::ops::Range<usize>,
    depth: std::ops::Range<usize>,
    /// Writable for whole tiles.
    to: *mut bf16,
}

impl<G: Gather> Kernel for CopyTiles<'_, G> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let steps = self.depth.len().div_ceil(TILE_DEPTH);
        for (i, row) in self.rows.clone().enumerate() {
            let row = self.source.row(row);
            // SAFETY: `to` holds whole tiles for the rows and the depth; the source vouches for its runs.
            unsafe {
                let to = self.to.add((i / TILE_ROWS * steps * TILE_ROWS + i % TILE_ROWS) * TILE_DEPTH);
                let mut k = self.depth.start;
                while k < self.depth.end {
                    let (mut from, run) = self.source.run(row, k);
                    let end = self.depth.end.min(k + run);
                    while k < end {
                        let at = k - self.depth.start;
                        let inner = at % TILE_DEPTH;
                        let to = to.add(at / TILE_DEPTH * TILE + inner);
                        if inner == 0 && end - k >= TILE_DEPTH && !from.is_null() {
                            let lines = (end - k) / TILE_DEPTH;
                            for line in 0..lines {
                                G::Item::round_line(s, from.add(line * TILE_DEPTH), to.add(line * TILE));
                            }
                            from = from.add(lines * TILE_DEPTH);
                            k += lines * TILE_DEPTH;
                            continue;
                        }
                        let n = (TILE_DEPTH - inner).min(end - k);
                        if from.is_null() {
                            std::ptr::write_bytes(to, 0, n);
                        } else {
                            G::Item::round(s, from, to, n);
                            from = from.add(n);
                        }
                        k += n;
                    }
                }
                let at = self.depth.len();
                let inner = at % TILE_DEPTH;
                if inner > 0 {
                    std::ptr::write_bytes(to.add(at / TILE_DEPTH * TILE + inner), 0, TILE_DEPTH - inner);
                }
            }
        }
    }
}
