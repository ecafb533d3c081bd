//! Pictures of any size in bounded memory.
//!
//! Every tile is read with a margin around it. The outer half of the margin only lets the tile see what lies beyond it and
//! is thrown away; in the inner half neighbours fade into each other. If the outer half is as wide as the network
//! reaches, the result is that of the whole picture.

use candle_core::{Device, Tensor};

use super::RrdbNet;
use crate::nn::Seamless;
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

    /// The side of a tile.
    pub fn side(&self) -> usize {
        self.side
    }

    /// How many tiles a picture has, whose edges may meet, for a network whose sizes are multiples of `multiple`
    /// ([`RrdbNet::size_multiple`]).
    pub fn count(&self, height: usize, width: usize, multiple: usize, seamless: Seamless) -> usize {
        let cuts = |side, meets| self.cuts(self.seen(side, multiple, meets).len(), multiple).len();
        cuts(height, seamless.y) * cuts(width, seamless.x)
    }

    /// Height and width of the largest tile of such a picture, in pixels of the input.
    pub(super) fn largest(
        &self,
        [height, width]: [usize; 2],
        multiple: usize,
        seamless: Seamless,
    ) -> [usize; 2] {
        let side = |side, meets| self.seen(side, multiple, meets).len().min(self.side);
        [side(height, seamless.y), side(width, seamless.x)]
    }

    /// The places of a side that the network is shown, one after the other. Beyond an edge that meets the opposite one it
    /// sees that, as far as the margin goes; beyond another it sees the last pixel again, as far as it must.
    fn seen(&self, length: usize, multiple: usize, meets: bool) -> Vec<usize> {
        let before = if meets { self.margin(multiple) } else { 0 };
        let whole = (length + 2 * before).next_multiple_of(multiple);
        let place = |at: usize| match meets {
            // As `at - before`, and never below 0.
            true => (at + length * before - before) % length,
            false => at.min(length - 1),
        };
        (0..whole).map(place).collect()
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

/// A picture on its way through a network, a tile at a time. On the CPU.
///
/// Sides may have any length: they are continued to what the network needs, and cut again.
pub struct TiledUpscale {
    /// The picture `(1, 3, height, width)`, continued.
    pixels: Tensor,
    /// Height and width of the picture itself.
    size: [usize; 2],
    /// Where it begins among the pixels, from the top and from the left.
    begin: [usize; 2],
    rows: Vec<Cut>,
    columns: Vec<Cut>,
    margin: usize,
    scale: usize,
    sum: Sum,
    done: usize,
}

impl TiledUpscale {
    /// Cuts a picture `(1, 3, height, width)` in 0..=1, whose edges may meet; what is not larger than a tile is not cut.
    ///
    /// # Errors
    /// When the shape does not fit, or on device errors.
    pub fn new(network: &RrdbNet, pixels: &Tensor, tiles: UpscaleTiles, seamless: Seamless) -> Result<Self> {
        let (batch, channels, height, width) = pixels.dims4()?;
        if batch != 1 || channels != super::CHANNELS || height == 0 || width == 0 {
            let message = format!("{:?} is no picture (1, 3, height, width)", pixels.dims());
            return Err(Error::Tensor(candle_core::Error::Msg(message)));
        }
        let (multiple, scale) = (network.size_multiple(), network.scale());
        let margin = tiles.margin(multiple);
        let pixels = places(pixels, 2, tiles.seen(height, multiple, seamless.y))?;
        let pixels = places(&pixels, 3, tiles.seen(width, multiple, seamless.x))?;
        let begin = [seamless.y, seamless.x].map(|meets| if meets { margin } else { 0 });
        let (_, _, full_height, full_width) = pixels.dims4()?;
        Ok(Self {
            rows: tiles.cuts(full_height, multiple),
            columns: tiles.cuts(full_width, multiple),
            margin,
            begin,
            sum: Sum::new(full_height * scale, full_width * scale),
            size: [height, width],
            pixels,
            scale,
            done: 0,
        })
    }

    /// How many tiles there are.
    pub fn total(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    /// How many are done.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Enlarges the next tile. False: there was none left.
    ///
    /// # Errors
    /// On device errors.
    pub fn step(&mut self, network: &RrdbNet) -> Result<bool> {
        let Some(row) = self.rows.get(self.done / self.columns.len()) else { return Ok(false) };
        let column = self.columns[self.done % self.columns.len()];
        let part = self.pixels.narrow(2, row.from, row.to - row.from)?;
        let part = part.narrow(3, column.from, column.to - column.from)?.contiguous()?;
        let weights = [row.weights(self.scale, self.margin), column.weights(self.scale, self.margin)];
        let place = [row.from * self.scale, column.from * self.scale];
        self.sum.add(&network.forward(&part)?, place, &weights)?;
        self.done += 1;
        Ok(true)
    }

    /// The picture `(1, 3, height, width)`, as much larger as the network makes it, once all tiles are done.
    ///
    /// # Errors
    /// On device errors.
    pub fn finish(self) -> Result<Tensor> {
        let [height, width] = self.size.map(|side| side * self.scale);
        let [top, left] = self.begin.map(|side| side * self.scale);
        Ok(self.sum.finish()?.narrow(2, top, height)?.narrow(3, left, width)?.contiguous()?)
    }
}

impl RrdbNet {
    /// The picture `(1, 3, height, width)` in 0..=1, `scale()` times as large, tile by tile. `done` is told how many
    /// tiles are done after each, and of how many.
    ///
    /// # Errors
    /// As [`TiledUpscale::new`].
    pub fn upscale(
        &self,
        pixels: &Tensor,
        tiles: UpscaleTiles,
        done: &mut dyn FnMut(usize, usize),
    ) -> Result<Tensor> {
        let mut upscale = TiledUpscale::new(self, pixels, tiles, Seamless::default())?;
        while upscale.step(self)? {
            done(upscale.done(), upscale.total());
        }
        upscale.finish()
    }
}

/// The rows (or columns) at these places.
fn places(pixels: &Tensor, axis: usize, places: Vec<usize>) -> Result<Tensor> {
    let places: Vec<u32> = places.into_iter().map(|place| place as u32).collect();
    let places = Tensor::new(places, pixels.device())?;
    Ok(pixels.contiguous()?.index_select(&places, axis)?)
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
        assert_eq!(UpscaleTiles::default().count(192, 193, 1, Seamless::default()), 2);
    }
}
