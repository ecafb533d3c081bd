//! How much memory enlarging takes, told before it begins.

use std::path::Path;

use candle_core::{DType, Device};

use super::{RrdbNet, UpscaleTiles, unwrapped};
use crate::nn::Seamless;
use crate::{Result, Weights};

/// Bytes of an activation value: f32 on every device that counts its memory here.
const ACTIVATION: u64 = 4;
/// Bytes of a pixel of the result while tiles are added to it: the weighted sum, with what is kept for it.
const SUM_PIXEL: u64 = 32;
/// Bytes of a pixel of the result when all tiles are done: the sum, the picture and its copies.
const JOINED_PIXEL: u64 = 64;
/// States at full size that the last convolutions hold: input, output and what the activation makes of it.
const LAST_STATES: u64 = 3;
/// States of the first layer's width that a dense part holds beside what it joins: first, block, dense and residual.
const WAITING_STATES: u64 = 4;

impl RrdbNet {
    /// The memory that the network in a file will hold once it is loaded, in bytes, from the file's header alone.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn loaded_bytes(path: &Path, device: &Device, dtype: DType) -> Result<u64> {
        Ok(unwrapped(&Weights::open_file(path, device, dtype)?).loaded_bytes())
    }

    /// The memory that enlarging one picture of `size`, height and width, takes beside the weights, in bytes.
    pub fn workspace(&self, size: [usize; 2], tiles: UpscaleTiles, seamless: Seamless) -> u64 {
        let [height, width] = tiles.largest(size, self.unshuffle, seamless).map(|side| side as u64);
        let tile = height.saturating_mul(width);
        let (features, joined) = (self.features as u64, (self.features + 4 * self.growth) as u64);
        let enlarged = 1u64 << (2 * self.upsampling.len());
        // Two unions at once: the last one and the one that it is made from.
        let body = WAITING_STATES * features + 2 * joined;
        let values = body.max(LAST_STATES * features * enlarged);
        let held = (tile.saturating_mul(values) / (self.unshuffle * self.unshuffle) as u64)
            .saturating_mul(ACTIVATION);
        let scale = self.scale() as u64;
        let result = size.iter().fold(scale * scale, |product, side| product.saturating_mul(*side as u64));
        held.saturating_add(result.saturating_mul(SUM_PIXEL)).max(result.saturating_mul(JOINED_PIXEL))
    }
}
