//! Pictures of any size in bounded memory: tile by tile, the overlaps blended.
//!
//! Every tile has group norms of its own, so the result is close to that of the whole picture and not equal to it.
//! Reference: `diffusers.AutoencoderKL.tiled_decode` and `_tiled_encode`.

use candle_core::Tensor;

use super::config::SampleSize;
use super::{AutoencoderKl, Canvas, LatentDistribution, VaeConfig};
use crate::Result;
use crate::nn::{FeatureMap, Seamless};

/// The side of a tile in pixels where a configuration names no size.
const USUAL_SIDE: usize = 512;
/// The least side of a smaller tile in pixels; below, a tile sees too little of the picture.
const LEAST_SIDE: usize = 256;

/// How large the square tiles are. Neighbours share a quarter of their side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiles {
    /// The side of a tile in latents; a multiple of 4, so that its quarter is whole.
    latents: usize,
    /// Pixels to one latent.
    scale: usize,
}

impl Tiles {
    /// The tiles of the reference: as large as the pictures that the model was trained on.
    pub fn of(config: &VaeConfig) -> Self {
        let side = match config.sample_size {
            Some(SampleSize::Side(side) | SampleSize::Sides([side, _])) => side,
            None => USUAL_SIDE,
        };
        let scale = config.scale_factor();
        Self { latents: (side / scale / 4 * 4).max(4), scale }
    }

    /// Half as large, unless that would be too small to see anything.
    pub fn smaller(self) -> Option<Self> {
        let half = Self { latents: self.latents / 8 * 4, ..self };
        (half.pixels() >= LEAST_SIDE).then_some(half)
    }

    /// The side of a tile in pixels.
    pub fn pixels(self) -> usize {
        self.latents * self.scale
    }

    /// How many latents of the other side are shown beyond an edge that meets it.
    fn margin(self) -> usize {
        self.latents / 4
    }

    /// Whether a picture of `height` x `width` pixels is larger than one tile.
    pub fn divide(self, height: usize, width: usize) -> bool {
        height.max(width) > self.pixels()
    }
}

impl AutoencoderKl {
    /// As [`decode`](Self::decode), on such a canvas.
    ///
    /// # Errors
    /// When shapes do not fit, or on device errors.
    pub fn decode_with(&self, latents: &Tensor, canvas: Canvas) -> Result<Tensor> {
        let (_, _, height, width) = latents.dims4()?;
        let Some(tiles) = canvas.tiles.filter(|tiles| height.max(width) > tiles.latents) else {
            return self.picture(latents, canvas.seamless);
        };
        let margin = tiles.margin();
        let tiled = self.decode_tiled(&surrounded(latents, canvas.seamless, margin)?, tiles)?;
        bare(&tiled, canvas.seamless, margin * tiles.scale)
    }

    /// As [`encode`](Self::encode), on such a canvas.
    ///
    /// # Errors
    /// When shapes do not fit, or on device errors.
    pub fn encode_with(&self, pixels: &Tensor, canvas: Canvas) -> Result<LatentDistribution> {
        let (_, _, height, width) = pixels.dims4()?;
        let Some(tiles) = canvas.tiles.filter(|tiles| height.max(width) > tiles.pixels()) else {
            return LatentDistribution::from_moments(&self.moments(pixels, canvas.seamless)?);
        };
        let margin = tiles.margin();
        let around = surrounded(pixels, canvas.seamless, margin * tiles.scale)?;
        let LatentDistribution { mean, logvar } = self.encode_tiled(&around, tiles)?;
        let bare = |values: &Tensor| bare(values, canvas.seamless, margin);
        Ok(LatentDistribution { mean: bare(&mean)?, logvar: bare(&logvar)? })
    }

    /// As [`decode`](Self::decode), tile by tile: the memory is that of one tile, and of a few copies of the picture.
    /// What is no larger than one tile is not cut.
    ///
    /// # Errors
    /// When shapes do not fit, or on device errors.
    pub fn decode_tiled(&self, latents: &Tensor, tiles: Tiles) -> Result<Tensor> {
        let (from, to) = (tiles.latents, tiles.pixels());
        let (_, _, height, width) = latents.dims4()?;
        if height.max(width) <= from {
            return self.decode(latents);
        }
        tile_by_tile(latents, from, to, |tile| self.decode(tile))
    }

    /// As [`encode`](Self::encode), tile by tile. What is no larger than one tile is not cut.
    ///
    /// # Errors
    /// When shapes do not fit, or on device errors.
    pub fn encode_tiled(&self, pixels: &Tensor, tiles: Tiles) -> Result<LatentDistribution> {
        let (from, to) = (tiles.pixels(), tiles.latents);
        let (_, _, height, width) = pixels.dims4()?;
        if height.max(width) <= from {
            return self.encode(pixels);
        }
        LatentDistribution::from_moments(&tile_by_tile(pixels, from, to, |tile| {
            self.moments(tile, Seamless::default())
        })?)
    }
}

/// A picture `(batch, channels, height, width)` with so many values of its other side beyond each edge that meets it: what
/// tiles, which know nothing of the other side, see of it.
fn surrounded(picture: &Tensor, seamless: Seamless, by: usize) -> Result<Tensor> {
    match seamless.any() {
        true => FeatureMap::from_nchw(picture)?.with_seamless(seamless).surrounded(by)?.to_nchw(),
        false => Ok(picture.clone()),
    }
}

/// What [`surrounded`] surrounded.
fn bare(picture: &Tensor, seamless: Seamless, by: usize) -> Result<Tensor> {
    match seamless.any() {
        true => FeatureMap::from_nchw(picture)?.with_seamless(seamless).without_surroundings(by)?.to_nchw(),
        false => Ok(picture.clone()),
    }
}

/// Cuts `input` `(batch, channels, height, width)` into tiles of side `from`, turns each into one of side `to`, and
/// puts these together. Every tile begins three quarters of a side after the one before; what both cover fades from
/// the one into the other.
fn tile_by_tile(
    input: &Tensor,
    from: usize,
    to: usize,
    work: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let (_, _, height, width) = input.dims4()?;
    let (step, overlap, kept) = (from / 4 * 3, to / 4, to / 4 * 3);
    let mut strips = Vec::new();
    let mut above: Vec<Tensor> = Vec::new();
    for y in (0..height).step_by(step) {
        let strip = input.narrow(2, y, from.min(height - y))?;
        let mut row: Vec<Tensor> = Vec::new();
        for x in (0..width).step_by(step) {
            let mut tile = work(&strip.narrow(3, x, from.min(width - x))?.contiguous()?)?;
            if let Some(above) = above.get(row.len()) {
                tile = fade(above, &tile, 2, overlap)?;
            }
            if let Some(left) = row.last() {
                tile = fade(left, &tile, 3, overlap)?;
            }
            row.push(tile);
        }
        let cut = |tile: &Tensor| {
            let (_, _, height, width) = tile.dims4()?;
            tile.narrow(2, 0, kept.min(height))?.narrow(3, 0, kept.min(width))
        };
        let parts = row.iter().map(cut).collect::<candle_core::Result<Vec<_>>>()?;
        strips.push(Tensor::cat(&parts, 3)?);
        above = row;
    }
    Ok(Tensor::cat(&strips, 2)?)
}

/// `tile`, whose first `overlap` values along `axis` come out of the last ones of `before` little by little.
fn fade(before: &Tensor, tile: &Tensor, axis: usize, overlap: usize) -> Result<Tensor> {
    let (length, end) = (tile.dim(axis)?, before.dim(axis)?);
    let overlap = overlap.min(length).min(end);
    let ramp = |weight: &dyn Fn(f64) -> f64| {
        let weights: Vec<f32> = (0..overlap).map(|i| weight(i as f64 / overlap as f64) as f32).collect();
        let shape = if axis == 2 { (1, 1, overlap, 1) } else { (1, 1, 1, overlap) };
        Tensor::from_vec(weights, shape, tile.device())
    };
    let old = before.narrow(axis, end - overlap, overlap)?.broadcast_mul(&ramp(&|share| 1.0 - share)?)?;
    let new = tile.narrow(axis, 0, overlap)?.broadcast_mul(&ramp(&|share| share)?)?;
    let faded = (old + new)?;
    Ok(match length - overlap {
        0 => faded,
        rest => Tensor::cat(&[&faded, &tile.narrow(axis, overlap, rest)?], axis)?,
    })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn tiles(json: &str) -> Tiles {
        Tiles::of(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn tiles_are_as_large_as_the_pictures_that_the_model_knows() {
        let levels = r#""block_out_channels": [32, 32, 32, 32]"#;
        for (size, pixels) in
            [("512", 512), ("[768, 512]", 768), ("null", 512), ("500", 480), ("1", 32), ("0", 32)]
        {
            let json = format!("{{{levels}, \"sample_size\": {size}}}");
            assert_eq!(tiles(&json).pixels(), pixels, "{size}");
        }
        let large = tiles(&format!("{{{levels}, \"sample_size\": 1024}}"));
        assert!(large.divide(1032, 64) && !large.divide(1024, 1024));
        let smaller: Vec<_> =
            std::iter::successors(Some(large), |tiles| tiles.smaller()).map(Tiles::pixels).collect();
        assert_eq!(smaller, [1024, 512, 256]);
    }

    /// Tiles that are only copied give back what was cut, whatever the size: nothing is lost, doubled or shifted.
    #[test]
    fn cutting_and_joining_alone_changes_nothing() {
        for (height, width) in [(1, 1), (8, 8), (9, 23), (16, 5), (40, 41)] {
            let values: Vec<f32> = (0..2 * height * width).map(|i| (i % 97) as f32).collect();
            let input = Tensor::from_vec(values, (1, 2, height, width), &Device::Cpu).unwrap();
            let joined = tile_by_tile(&input, 8, 8, |tile| Ok(tile.clone())).unwrap();
            assert_eq!(joined.dims(), input.dims());
            let difference = (joined - &input).unwrap().abs().unwrap().max_all().unwrap();
            assert!(difference.to_scalar::<f32>().unwrap() < 1e-4, "{height} x {width}");
        }
    }
}
