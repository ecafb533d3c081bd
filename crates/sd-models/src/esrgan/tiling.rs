//! Pictures of any size in bounded memory.
//!
//! Every tile is read with a margin around it. The outer half of the margin only lets the tile see what lies beyond it and
//! is thrown away; in the inner half neighbours fade into each other. If the outer half is as wide as the network
//! reaches, the result is that of the whole picture.

use candle_core::{Device, Tensor};

use super::RrdbNet;
use crate::{Error, Result};

/// How a picture is cut, in pixels of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpscaleTiles {
    side: usize,
    margin: usize,
}

impl UpscaleTiles {
    /// The sides that a tile may have, margin included.
    pub const SIDE: std::ops::RangeInclusive<usize> = 32..=1024;

    /// Tiles of `side` pixels, `margin` of them on each side shared with the neighbours. `None` where `side` is out of
    /// [`SIDE`](Self::SIDE) or the margins leave less than half of it.
    pub fn new(side: usize, margin: usize) -> Option<Self> {
        (Self::SIDE.contains(&side) && 4 * margin <= side).then_some(Self { side, margin })
    }

    /// How many tiles a picture has.
    pub fn count(&self, height: usize, width: usize) -> usize {
        self.cuts(height, 1).len() * self.cuts(width, 1).len()
    }

    /// The margin for a network whose sizes are multiples of `multiple`: no more than 4 times in a side, so that never
    /// more than two tiles meet.
    fn margin(&self, multiple: usize) -> usize {
        self.margin / multiple * multiple
    }

    /// How one side of the picture is cut. Every cut begins at a multiple of `multiple`.
    fn cuts(&self, length: usize, multiple: usize) -> Vec<Cut> {
        if length <= self.side {
            return vec![Cut { from: 0, to: length, rises: false, falls: None }];
        }
        let margin = self.margin(multiple);
        let step = (self.side - 2 * margin) / multiple * multiple;
        let cut = |start: usize| {
            let end = start + step + margin;
            let last = start + step >= length;
            let from = start.saturating_sub(margin);
            Cut { from, to: end.min(length), rises: start > 0, falls: (!last).then_some(end) }
        };
        (0..length).step_by(step.max(1)).map(cut).collect()
    }
}

impl Default for UpscaleTiles {
    /// The widest layers of a network of four times with 64 channels take 150 MB each then.
    fn default() -> Self {
        Self { side: 192, margin: 16 }
    }
}

/// A part of one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    from: usize,
    to: usize,
    /// Whether a neighbour comes before it.
    rises: bool,
    /// Where it ends if a neighbour comes after it; the picture may end before that.
    falls: Option<usize>,
}

impl Cut {
    /// How much each pixel of the result counts in this cut: 0 in the outer half of a shared margin, rising in the inner
    /// half. Neighbours rise and fall at the same places, so that together they count 1 wherever two meet.
    fn weights(&self, scale: usize, margin: usize) -> Vec<f32> {
        let width = (margin * scale) as f32;
        let rise = |at: usize| match margin {
            0 => 1.0,
            _ => ((at as f32 + 0.5 - width / 2.0) / width).clamp(0.0, 1.0),
        };
        let weight = |at: usize| {
            let before = if self.rises { rise(at) } else { 1.0 };
            let after = self.falls.map_or(1.0, |end| rise((end - self.from) * scale - 1 - at));
            f32::min(before, after)
        };
        (0..(self.to - self.from) * scale).map(weight).collect()
    }
}

impl RrdbNet {
    /// The picture `(1, 3, height, width)` in 0..=1, `scale()` times as large, tile by tile; what is not larger than a
    /// tile is not cut. On the CPU. Sides of any length: they are continued to what the network needs, and cut again. `done` is told
    /// how many tiles are done after each, and of how many.
    ///
    /// # Errors
    /// When the shape does not fit, or on device errors.
    pub fn upscale(
        &self,
        pixels: &Tensor,
        tiles: UpscaleTiles,
        done: &mut dyn FnMut(usize, usize),
    ) -> Result<Tensor> {
        let (batch, channels, height, width) = pixels.dims4()?;
        if batch != 1 || channels != super::CHANNELS || height == 0 || width == 0 {
            let message = format!("{:?} is no picture (1, 3, height, width)", pixels.dims());
            return Err(Error::Tensor(candle_core::Error::Msg(message)));
        }
        let (multiple, scale) = (self.size_multiple(), self.scale());
        let continued = continued(&continued(pixels, 2, multiple)?, 3, multiple)?;
        let (_, _, full_height, full_width) = continued.dims4()?;
        let (rows, columns) = (tiles.cuts(full_height, multiple), tiles.cuts(full_width, multiple));
        let margin = tiles.margin(multiple);
        let mut sum = Sum::new(full_height * scale, full_width * scale);
        let mut finished = 0;
        for row in &rows {
            for column in &columns {
                let part = continued.narrow(2, row.from, row.to - row.from)?;
                let part = part.narrow(3, column.from, column.to - column.from)?.contiguous()?;
                let weights = [row.weights(scale, margin), column.weights(scale, margin)];
                sum.add(&self.forward(&part)?, [row.from * scale, column.from * scale], &weights)?;
                finished += 1;
                done(finished, rows.len() * columns.len());
            }
        }
        let result = sum.finish()?;
        Ok(result.narrow(2, 0, height * scale)?.narrow(3, 0, width * scale)?.contiguous()?)
    }
}

/// With its last row (or column) repeated until the length is a multiple.
fn continued(pixels: &Tensor, axis: usize, multiple: usize) -> Result<Tensor> {
    let length = pixels.dim(axis)?;
    match length.next_multiple_of(multiple) - length {
        0 => Ok(pixels.clone()),
        missing => {
            let last = pixels.narrow(axis, length - 1, 1)?;
            let parts = std::iter::once(pixels).chain(std::iter::repeat_n(&last, missing));
            Ok(Tensor::cat(&parts.collect::<Vec<_>>(), axis)?)
        }
    }
}

/// Weighted tiles put together.
struct Sum {
    height: usize,
    width: usize,
    values: Vec<f32>,
    weights: Vec<f32>,
}

impl Sum {
    fn new(height: usize, width: usize) -> Self {
        Self { height, width, values: vec![0.0; 3 * height * width], weights: vec![0.0; height * width] }
    }

    fn add(&mut self, tile: &Tensor, [top, left]: [usize; 2], [rows, columns]: &[Vec<f32>; 2]) -> Result<()> {
        let tile: Vec<f32> = tile.flatten_all()?.to_vec1()?;
        for (y, row) in rows.iter().enumerate() {
            for (x, column) in columns.iter().enumerate() {
                let (place, weight) = ((top + y) * self.width + left + x, row * column);
                self.weights[place] += weight;
                for channel in 0..super::CHANNELS {
                    let value = tile[(channel * rows.len() + y) * columns.len() + x];
                    self.values[channel * self.height * self.width + place] += weight * value;
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Tensor> {
        let Self { height, width, mut values, weights } = self;
        for plane in values.chunks_mut(height * width) {
            plane.iter_mut().zip(&weights).for_each(|(value, weight)| *value /= weight);
        }
        Ok(Tensor::from_vec(values, (1, super::CHANNELS, height, width), &Device::Cpu)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pixel counts in some tile, and where two meet they count 1 together.
    #[test]
    fn the_weights_of_all_tiles_add_up_to_one() {
        for (side, margin, multiple, scale) in [(32, 8, 1, 4), (40, 6, 2, 2), (33, 0, 1, 1), (48, 9, 4, 1)] {
            let tiles = UpscaleTiles::new(side, margin).unwrap();
            for length in [4, 20, 32, 40, 52, 100, 256] {
                let mut sum = vec![0.0; length * scale];
                let mut covered = 0;
                for cut in tiles.cuts(length, multiple) {
                    assert!(
                        cut.from % multiple == 0
                            && cut.to % multiple == 0
                            && cut.from <= covered
                            && cut.to - cut.from <= side
                    );
                    covered = cut.to;
                    for (at, weight) in cut.weights(scale, tiles.margin(multiple)).iter().enumerate() {
                        sum[cut.from * scale + at] += weight;
                    }
                }
                assert_eq!(covered, length);
                for (at, sum) in sum.iter().enumerate() {
                    assert!((sum - 1.0).abs() < 1e-4, "{side}, {margin}: {sum} at {at} of {length}");
                }
            }
        }
    }

    #[test]
    fn tiles_have_bounds() {
        for (side, margin) in [(31, 0), (1025, 0), (64, 17)] {
            assert_eq!(UpscaleTiles::new(side, margin), None, "{side}, {margin}");
        }
        assert_eq!(UpscaleTiles::default().count(192, 193), 2);
    }
}
