//! Matrix products with packed weights: the driver that cuts them into tiles.
#![allow(unsafe_code)]

pub(crate) mod epilogue;
pub(crate) mod gather;
pub(crate) mod micro;
pub(crate) mod pack;
mod tiles;

use crate::Kernels;
use crate::buffer::{carve, line_up, with_scratch};
use crate::element::Lanes;
use crate::parallel;
use epilogue::{Finish, Target};
use gather::{CopyBlock, Gather};
use micro::{A_STRIDE, DEPTH, RunTile, Tile, Widen};
use pack::{PackedB, Storage};

/// How weights are stored and multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// f32 weights and f32 products.
    F32,
    /// bf16 weights. On AMX the input is rounded to bf16 and products are summed in f32; elsewhere the weights
    /// are widened to f32 as they are read, and the input is used as it is.
    Bf16,
}

/// Rows of A that a task copies and keeps in cache: a multiple of every set's tile rows.
const BLOCK_ROWS: usize = 96;
/// Up to so many rows are one block, so that weights come from memory once: the products of two prompts take about
/// as long as reading the text encoder's weights. Its copy and its sums still fit the second cache.
const FEW_ROWS: usize = 192;
/// Panels that a task goes through for each block of A.
const BLOCK_PANELS: usize = 16;

impl Kernels {
    /// Columns of a panel of B for the f32 microkernel.
    pub(crate) fn panel(self) -> usize {
        2 * self.lanes()
    }
}

/// A piece of a product: some rows by some panels.
struct Block {
    rows: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
}

/// Computes `target = epilogue(a * b)`.
///
/// Each output is summed in the order of the depth index by one thread, so the result depends neither on the
/// number of threads nor on what other rows there are.
///
/// # Safety
/// `target.output` is writable for `a.rows() * target.stride` values, `target.stride == b.outputs()`, and the
/// residual and per-image values are as long as `target` says.
pub(crate) unsafe fn multiply<G: Gather, O: Lanes>(a: &G, b: &PackedB, target: &Target<'_, O>) {
    let (rows, panels) = (a.rows(), b.panels());
    if rows == 0 || panels == 0 {
        return;
    }
    let block_rows = match &b.storage {
        Storage::Tiles(..) => tiles::BLOCK_ROWS,
        _ if rows <= FEW_ROWS => FEW_ROWS,
        _ => BLOCK_ROWS,
    };
    let row_blocks = rows.div_ceil(block_rows);
    // Enough tasks that the threads end at about the same time, but no more copies of A than that takes.
    let wanted = (4 * rayon::current_num_threads()).div_ceil(row_blocks);
    let panel_blocks = panels.div_ceil(BLOCK_PANELS).max(wanted.min(panels));
    let block_panels = panels.div_ceil(panel_blocks);
    let panel_blocks = panels.div_ceil(block_panels);
    parallel::for_each(row_blocks * panel_blocks, |task| {
        let (row, panel) = (task / panel_blocks * block_rows, task % panel_blocks * block_panels);
        let block =
            Block { rows: row..rows.min(row + block_rows), panels: panel..panels.min(panel + block_panels) };
        match &b.storage {
            // SAFETY: the caller's promise; tasks write disjoint blocks.
            Storage::F32(weights) => unsafe { multiply_block(a, b, weights, target, &block) },
            // SAFETY: as above.
            Storage::Bf16(weights) => unsafe { multiply_block(a, b, weights, target, &block) },
            Storage::Tiles(tiles, weights) => {
                // SAFETY: as above.
                unsafe { tiles::multiply_block(a, b, weights, *tiles, target, &block) }
            }
        }
    });
}

/// # Safety
/// As [`multiply`], and no other thread writes the block.
unsafe fn multiply_block<G: Gather, W: Lanes, O: Lanes>(
    a: &G,
    b: &PackedB,
    weights: &[W],
    target: &Target<'_, O>,
    block: &Block,
) {
    let kernels = b.kernels;
    let (width, tile_rows) = (b.width, kernels.tile_rows());
    let rows = block.rows.len().next_multiple_of(tile_rows);
    let (steps, depth) = depth_steps(b.k);
    let tile_size = line_up(tile_rows * width);
    // With one step a tile is finished at once; else all sums of the block wait for the last step.
    let tiles = if steps == 1 { 1 } else { rows / tile_rows * block.panels.len() };
    // Weights that several tiles read are widened once.
    let widened = if W::WIDE || rows <= tile_rows { 0 } else { depth * width };
    let total = line_up(rows * A_STRIDE) + line_up(widened) + tiles * tile_size;
    with_scratch(total, |mut scratch| {
        let copy = carve(&mut scratch, rows * A_STRIDE);
        let wide = carve(&mut scratch, widened);
        let sums = carve(&mut scratch, tiles * tile_size);
        for step in 0..steps {
            let k = step * depth..b.k.min((step + 1) * depth);
            kernels.dispatch(CopyBlock {
                source: a,
                rows: block.rows.clone(),
                depth: k.clone(),
                to: copy.as_mut_ptr(),
            });
            for (p, panel) in block.panels.clone().enumerate() {
                let narrow = b.narrow(panel);
                let panel_width = if narrow { width / 2 } else { width };
                let from = panel * b.k * width + k.start * panel_width;
                // The panel after this one comes near piece by piece, while this one's tiles are computed.
                let next = weights.as_ptr().wrapping_add((panel + 1) * b.k * width + k.start * width);
                let bytes = size_of::<W>() * width * tile_rows;
                let next_step = bytes.div_ceil(rows).next_multiple_of(4);
                let weights = &weights[from..from + k.len() * panel_width];
                if widened > 0 {
                    kernels.dispatch(Widen { from: weights, to: &mut wide[..weights.len()] });
                }
                let first = panel * b.panel_outputs();
                let columns = first..b.outputs().min(first + b.panel_outputs());
                for (t, row) in block.rows.clone().step_by(tile_rows).enumerate() {
                    let slot = if steps == 1 { 0 } else { p * (rows / tile_rows) + t };
                    let tile_sums = &mut sums[slot * tile_size..(slot + 1) * tile_size];
                    let rows = row..block.rows.end.min(row + tile_rows);
                    let tile = Tile {
                        a: copy[t * tile_rows * A_STRIDE..].as_ptr(),
                        b: weights.as_ptr(),
                        depth: k.len(),
                        c: tile_sums.as_mut_ptr(),
                        c_stride: width,
                        rows: rows.len(),
                        next: next.cast::<u8>().wrapping_add(t * k.len() * next_step),
                        next_step,
                        accumulate: step > 0,
                    };
                    if widened > 0 {
                        let tile = tile.with_b(wide.as_ptr());
                        kernels.dispatch(RunTile::<_, A_STRIDE> { tile, narrow });
                    } else {
                        kernels.dispatch(RunTile::<_, A_STRIDE> { tile, narrow });
                    }
                    if step + 1 == steps {
                        kernels.dispatch(Finish {
                            target,
                            sums: tile_sums.as_ptr(),
                            sums_stride: width,
                            gates: width / 2,
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

/// Cuts a depth into equal steps of at most `DEPTH`: how many, and how long each but the last.
fn depth_steps(k: usize) -> (usize, usize) {
    let steps = k.div_ceil(DEPTH).max(1);
    (steps, k.div_ceil(steps).max(1))
}
