//! One task of a convolution: some tiles by some panels.
#![allow(unsafe_code)]

use std::ops::Range;

use super::transform::{IN, OUT, TransformInput, TransformOutput};
use super::{Images, Plan, STRIDE};
use crate::buffer::{carve, line_up, with_scratch};
use crate::element::Lanes;
use crate::gemm::epilogue::Target;
use crate::gemm::micro::{RunTile, Tile};

/// What is multiplied at one point.
struct Product<'a> {
    /// Rows `STRIDE` apart, one for each tile.
    inputs: &'a [f32],
    /// The panel's columns for each channel; more may follow.
    weights: &'a [f32],
    /// Channels.
    depth: usize,
    panel: usize,
    tiles: usize,
    accumulate: bool,
    /// Rows of a full panel's width, one for each tile.
    sums: &'a mut [f32],
}

impl<I: Lanes, W: Lanes> Plan<'_, I, W> {
    /// # Safety
    /// As [`convolve`], and no other thread writes these tiles and panels.
    pub(super) unsafe fn task<O: Lanes>(
        &self,
        tiles: Range<usize>,
        panels: Range<usize>,
        shared: Option<&[f32]>,
        target: &Target<'_, O>,
    ) {
        let (kernels, width) = (self.b.kernels, self.b.width);
        let rows = tiles.len().next_multiple_of(kernels.tile_rows());
        let steps = self.channels().div_ceil(self.step);
        let input_stride = rows * STRIDE;
        let own_weights = if shared.is_some() { 0 } else { self.points * self.step * width };
        // With one step the sums of a panel are finished at once; else those of all wait for the last step.
        let sums_len = self.points * rows * width;
        let slots = if steps == 1 { 1 } else { panels.len() };
        let len = self.points * input_stride + line_up(own_weights) + slots * sums_len;
        with_scratch(len, |mut scratch| {
            let inputs = carve(&mut scratch, self.points * input_stride);
            let own = carve(&mut scratch, own_weights);
            let sums = carve(&mut scratch, slots * sums_len);
            for step in 0..steps {
                let channels = self.step_channels(step);
                for (i, tile) in tiles.clone().enumerate() {
                    kernels.dispatch(TransformInput {
                        pixels: self.pixels(tile, channels.start),
                        doubled: self.doubled,
                        channels: channels.len(),
                        to: inputs[i * STRIDE..].as_mut_ptr(),
                        to_stride: input_stride,
                    });
                }
                // Points first: their inputs stay in the first cache while all panels go by.
                let together = if shared.is_some() && steps > 1 { panels.len() } else { 1 };
                for first in (0..panels.len()).step_by(together) {
                    let some = first..panels.len().min(first + together);
                    if shared.is_none() {
                        // SAFETY: there is room for a step's channels at the widest panel.
                        unsafe {
                            self.transform_step(panels.start + first, channels.clone(), own.as_mut_ptr());
                        }
                    }
                    for (point, p) in (0..self.points).flat_map(|point| some.clone().map(move |p| (point, p)))
                    {
                        let weights = match shared {
                            Some(shared) => {
                                &shared[p * self.panel_len() + channels.start * self.points * width..]
                            }
                            None => &*own,
                        };
                        let slot = if steps == 1 { 0 } else { p };
                        self.multiply(Product {
                            inputs: &inputs[point * input_stride..(point + 1) * input_stride],
                            weights: &weights[point * channels.len() * self.panel_width(panels.start + p)..],
                            depth: channels.len(),
                            panel: panels.start + p,
                            tiles: tiles.len(),
                            accumulate: step > 0,
                            sums: &mut sums[slot * sums_len + point * rows * width..][..rows * width],
                        });
                    }
                    for p in some.filter(|_| step + 1 == steps) {
                        let slot = if steps == 1 { 0 } else { p };
                        let sums = &sums[slot * sums_len..(slot + 1) * sums_len];
                        // SAFETY: the caller's promise.
                        unsafe { self.finish(tiles.clone(), panels.start + p, rows, sums, target) };
                    }
                }
            }
        });
    }

    /// The product of a step's inputs and weights at one point.
    fn multiply(&self, product: Product<'_>) {
        let Product { inputs, weights, depth, panel, tiles, accumulate, sums } = product;
        let (kernels, stride) = (self.b.kernels, self.b.width);
        let (rows, width) = (kernels.tile_rows(), self.panel_width(panel));
        let matrix = &weights[..depth * width];
        // Meanwhile the next point's weights come, a part with each call.
        let (parts, next) = (tiles.div_ceil(rows), matrix.as_ptr_range().end);
        for (part, row) in (0..tiles).step_by(rows).enumerate() {
            kernels.dispatch(RunTile::<_, STRIDE> {
                tile: Tile {
                    a: inputs[row * STRIDE..][..rows * STRIDE].as_ptr(),
                    b: matrix.as_ptr(),
                    depth,
                    c: sums[row * stride..][..rows * stride].as_mut_ptr(),
                    c_stride: stride,
                    rows: rows.min(tiles - row),
                    next: next.wrapping_add(part * (matrix.len() / parts)).cast(),
                    next_step: width * size_of::<f32>() / parts,
                    accumulate,
                },
                narrow: self.b.narrow(panel),
            });
        }
    }

    /// Turns the sums of a panel to pixels.
    ///
    /// # Safety
    /// As [`convolve`], and no other thread writes these tiles and this panel.
    unsafe fn finish<O: Lanes>(
        &self,
        tiles: Range<usize>,
        panel: usize,
        rows: usize,
        sums: &[f32],
        target: &Target<'_, O>,
    ) {
        let to = self.images.to;
        let columns = panel * self.b.width..self.b.n.min((panel + 1) * self.b.width);
        for (i, tile) in tiles.enumerate() {
            let (image, y, x) = self.place(tile);
            self.b.kernels.dispatch(TransformOutput {
                target,
                sums: sums[i * self.b.width..].as_ptr(),
                point_stride: rows * self.b.width,
                pixel: (image * to.height + y) * to.width + x,
                line: to.width,
                size: [OUT.min(to.height - y), OUT.min(to.width - x)],
                columns: columns.clone(),
                bias: self.b.bias(panel),
                doubled: self.doubled,
            });
        }
    }

    /// A tile's image and first output pixel.
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let [down, across] = self.grid;
        (tile / (down * across), tile / across % down * OUT, tile % across * OUT)
    }

    /// A tile's input pixels at a channel; null outside of the image.
    fn pixels(&self, tile: usize, channel: usize) -> [*const I; IN * IN] {
        let Images { input, shape, padding, upsample, .. } = self.images;
        let (image, y, x) = self.place(tile);
        let scale = usize::from(*upsample);
        std::array::from_fn(|i| {
            let y = (y + i / IN).wrapping_sub(padding.top) >> scale;
            let x = (x + i % IN).wrapping_sub(padding.left) >> scale;
            if y >= shape.height || x >= shape.width {
                return std::ptr::null();
            }
            let pixel = (image * shape.height + y) * shape.width + x;
            input[pixel * shape.channels..][channel..shape.channels].as_ptr()
        })
    }
}
