//! Convolution with a window of 3x3 at stride 1 by Winograd's minimal filtering, F(4x4, 3x3): a quarter of the
//! products, for some additions.
//!
//! The image is cut in tiles of 4x4 output pixels. The weights stay packed as they are and are transformed in
//! every call, because they grow by four; so are the tiles' inputs, and what a task needs of both is small enough
//! to stay near its core.
//!
//! Sums are f32 and differ from the window's own in rounding: about twice the error, see the tests. An infinite
//! or NaN pixel makes every output of the tiles that read it non-finite, not only those under its window.
#![allow(unsafe_code)]

mod task;
mod transform;

use std::ops::Range;

use crate::buffer::with_shared_scratch;
use crate::conv::{ImageShape, Padding};
use crate::element::Lanes;
use crate::gemm::epilogue::Target;
use crate::gemm::pack::{PackedB, Storage};
use crate::parallel::{self, Shared};
use transform::{Doubled, OUT, Plain, Points, TransformWeights};

/// The most channels between two passes over the sums.
const DEPTH: usize = 192;
/// Distance between the rows of transformed inputs, in f32 values: an odd number of cache lines.
const STRIDE: usize = DEPTH + 16;
/// The most tiles of a task: the inputs of a step take half of a core's second cache. A multiple of every set's
/// tile rows.
const BLOCK_TILES: usize = 36;
/// The most panels of a task, so that its sums do not crowd out the rest.
const BLOCK_PANELS: usize = 8;
/// With no more blocks of tiles than this, each task transforms the weights that it needs on the spot.
const FEW_BLOCKS: usize = 2;
/// The most transformed weights at a time, in f32 values: 24 MB.
const SHARED: usize = 6 << 20;

/// The images of a convolution, channels-last.
pub(crate) struct Images<'a, T> {
    pub(crate) input: &'a [T],
    pub(crate) shape: ImageShape,
    /// The output's shape.
    pub(crate) to: ImageShape,
    pub(crate) padding: Padding,
    /// Whether each pixel is read as if it were four.
    pub(crate) upsample: bool,
}

/// Whether the products are worth the transforms for an image with `to` as its output.
///
/// The number of images must not matter, so that a batch gives what its images give alone.
///
/// Measured with AVX-512: two images of 8x8 with 1280 channels gain 1.6, of 16x16 with 1280 and larger ones with
/// fewer channels two to three. The bounds below that are cautious, not measured.
pub(crate) fn pays(b: &PackedB, channels: usize, to: ImageShape) -> bool {
    to.height * to.width >= 64 && channels >= 32 && b.n >= 32
}

/// Computes `target = epilogue(convolution)`, or returns false where the weights lie in matrix tiles.
///
/// Each sum goes through the channels in order, whatever the blocks are.
///
/// # Safety
/// `b` is a window of 3x3 over the images' channels; the output, residual and per-image values of `target` fit the
/// images' output shape.
pub(crate) unsafe fn convolve<I: Lanes, O: Lanes>(
    images: &Images<'_, I>,
    b: &PackedB,
    target: &Target<'_, O>,
) -> bool {
    match &b.storage {
        Storage::F32(weights) => {
            let plan = Plan::new(images, b, weights);
            // SAFETY: the caller's promise.
            unsafe { plan.run(target) };
        }
        Storage::Bf16(weights) => {
            let plan = Plan::new(images, b, weights);
            // SAFETY: the caller's promise.
            unsafe { plan.run(target) };
        }
        Storage::Tiles(..) => return false,
    }
    true
}

/// How a convolution is cut.
struct Plan<'a, I, W> {
    images: &'a Images<'a, I>,
    b: &'a PackedB,
    weights: &'a [W],
    /// Tiles of an image, down and across.
    grid: [usize; 2],
    /// Tiles of all images.
    tiles: usize,
    /// Tiles of a task.
    block: usize,
    /// Channels of a step.
    step: usize,
    /// Whether tiles begin with the second of two equal pixels, and so need fewer points.
    doubled: bool,
    /// Points of a tile.
    points: usize,
}

impl<'a, I: Lanes, W: Lanes> Plan<'a, I, W> {
    fn new(images: &'a Images<'a, I>, b: &'a PackedB, weights: &'a [W]) -> Self {
        let grid = [images.to.height.div_ceil(OUT), images.to.width.div_ceil(OUT)];
        let tiles = images.to.images * grid[0] * grid[1];
        let rows = b.kernels.tile_rows();
        let block = even_parts(tiles, BLOCK_TILES).next_multiple_of(rows);
        let channels = images.shape.channels;
        let step = even_parts(channels, DEPTH).next_multiple_of(b.kernels.lanes()).min(DEPTH);
        let Padding { top, left, .. } = images.padding;
        let doubled = images.upsample && top % 2 == 1 && left % 2 == 1;
        let side = if doubled { Doubled::COUNT } else { Plain::COUNT };
        Self { images, b, weights, grid, tiles, block, step, doubled, points: side * side }
    }

    fn channels(&self) -> usize {
        self.images.shape.channels
    }

    /// Transformed weights of a panel, in values.
    fn panel_len(&self) -> usize {
        self.points * self.channels() * self.b.width
    }

    /// # Safety
    /// As [`convolve`].
    unsafe fn run<O: Lanes>(&self, target: &Target<'_, O>) {
        let panels = self.b.panels();
        let blocks = self.tiles.div_ceil(self.block);
        if blocks <= FEW_BLOCKS {
            // SAFETY: the caller's promise.
            unsafe { self.tasks(0..panels, blocks, None, target) };
            return;
        }
        let group = (SHARED / self.panel_len()).clamp(1, panels);
        let group = even_parts(panels, group);
        with_shared_scratch(group * self.panel_len(), |shared| {
            for first in (0..panels).step_by(group) {
                let group = first..panels.min(first + group);
                self.transform_weights(group.clone(), shared);
                // SAFETY: the caller's promise.
                unsafe { self.tasks(group, blocks, Some(shared), target) };
            }
        });
    }

    /// Transforms the weights of some panels in parallel: `[panel][step][point][channel][column]`.
    fn transform_weights(&self, panels: Range<usize>, to: &mut [f32]) {
        let steps = self.channels().div_ceil(self.step);
        let to = Shared(to.as_mut_ptr());
        parallel::for_each(panels.len() * steps, |task| {
            let (panel, step) = (task / steps, task % steps);
            let channels = self.step_channels(step);
            let at = panel * self.panel_len() + channels.start * self.points * self.b.width;
            // SAFETY: steps lie one behind the other, each with room for the widest panel.
            unsafe { self.transform_step(panels.start + panel, channels, to.at(at)) };
        });
    }

    /// # Safety
    /// `to` is writable for the transformed weights of these channels.
    unsafe fn transform_step(&self, panel: usize, channels: Range<usize>, to: *mut f32) {
        let width = self.panel_width(panel);
        let from = panel * self.b.k * self.b.width + channels.start * width;
        self.b.kernels.dispatch(TransformWeights {
            from: self.weights[from..].as_ptr(),
            tap_stride: self.channels() * width,
            channels: channels.len(),
            width,
            doubled: self.doubled,
            to,
        });
    }

    fn step_channels(&self, step: usize) -> Range<usize> {
        step * self.step..self.channels().min((step + 1) * self.step)
    }

    fn panel_width(&self, panel: usize) -> usize {
        if self.b.narrow(panel) { self.b.width / 2 } else { self.b.width }
    }

    /// Computes the columns of some panels, with their transformed weights or without.
    ///
    /// # Safety
    /// As [`convolve`].
    unsafe fn tasks<O: Lanes>(
        &self,
        panels: Range<usize>,
        blocks: usize,
        shared: Option<&[f32]>,
        target: &Target<'_, O>,
    ) {
        // Enough tasks that the threads end at about the same time, but no more transforms of A than that takes.
        let wanted = (4 * rayon::current_num_threads()).div_ceil(blocks);
        let parts = panels.len().div_ceil(BLOCK_PANELS).max(wanted.min(panels.len()));
        let part = even_parts(panels.len(), panels.len().div_ceil(parts));
        let parts = panels.len().div_ceil(part);
        parallel::for_each(blocks * parts, |task| {
            let (block, first) = (task / parts, task % parts * part);
            let tiles = block * self.block..self.tiles.min((block + 1) * self.block);
            let shared = shared.map(|shared| &shared[first * self.panel_len()..]);
            let first = panels.start + first;
            // SAFETY: the caller's promise; tasks write disjoint parts of the output.
            unsafe { self.task(tiles, first..panels.end.min(first + part), shared, target) };
        });
    }
}

/// The size of the fewest parts of at most `most` that make up `len`, about equal.
fn even_parts(len: usize, most: usize) -> usize {
    len.div_ceil(len.div_ceil(most).max(1)).max(1)
}
