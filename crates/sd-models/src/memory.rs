//! How much memory a model part and its work will take, told before anything is read or computed.

use candle_core::DType;
use sd_kernels::Precision;

use crate::Weights;
use crate::controlnet::ControlNetConfig;
use crate::taesd::AutoencoderTiny;
use crate::unet::UnetConfig;
use crate::vae::VaeConfig;

/// Bytes of an activation value: f32 between layers on every device that counts its memory here.
const ACTIVATION: u64 = 4;
/// What the names of embedding tables end in; they stay in the format of activations.
const TABLES: [&str; 2] = ["token_embedding.weight", "position_embedding.weight"];
/// What the names of gated layers end in.
const GATED: &str = "ff.net.0.proj.weight";

impl Weights {
    /// The memory that the part will hold once it is loaded, in bytes, from the headers of its files alone.
    ///
    /// Counts every tensor of the files. 0 for random weights, whose shapes nobody knows before they are asked for.
    pub fn loaded_bytes(&self) -> u64 {
        let on_cpu = self.device().is_cpu();
        let (kernels, precision) = (sd_kernels::active(), precision(self.dtype()));
        let is_matrix = |shape: &[usize]| shape.len() > 1;
        let biases: std::collections::HashSet<&str> = match on_cpu {
            // They are packed with their weights.
            true => self
                .shapes()
                .filter(|(name, shape)| is_matrix(shape) && !is_table(name))
                .filter_map(|(name, _)| name.strip_suffix(".weight"))
                .collect(),
            false => Default::default(),
        };
        let bytes = self.shapes().map(|(name, shape)| {
            let values = shape.iter().fold(1usize, |product, side| product.saturating_mul(*side));
            if !on_cpu {
                return values.saturating_mul(self.dtype().size_in_bytes());
            }
            let Some((&rows, _)) = shape.split_first().filter(|_| is_matrix(shape) && !is_table(name)) else {
                // The bias of a packed layer counts there; norms and tables are f32.
                let packed = name.strip_suffix(".bias").is_some_and(|layer| biases.contains(layer));
                return if packed { 0 } else { values.saturating_mul(ACTIVATION as usize) };
            };
            let bias =
                name.strip_suffix(".weight").is_some_and(|layer| self.contains(&format!("{layer}.bias")));
            kernels.packed_bytes([rows, values / rows.max(1)], name.ends_with(GATED), bias, precision)
        });
        bytes.fold(0, |sum, bytes| sum.saturating_add(bytes as u64))
    }
}

fn is_table(name: &str) -> bool {
    TABLES.iter().any(|table| name.ends_with(table))
}

fn precision(dtype: DType) -> Precision {
    match dtype {
        DType::BF16 => Precision::Bf16,
        _ => Precision::F32,
    }
}

impl VaeConfig {
    /// The memory that decoding one picture of `height` x `width` pixels takes beside the weights, in bytes.
    ///
    /// The most is held in the first residual block of a level, in all known models that at full size. It still
    /// has the channels of the level before: its input and, each of the level's own channels, the hidden state, the
    /// shortcut, the normalised state and the output.
    pub fn decode_workspace(&self, height: usize, width: usize) -> u64 {
        let channels = &self.block_out_channels;
        let levels = channels.iter().enumerate().map(|(level, &own)| {
            let before = channels.get(level + 1).copied().unwrap_or(own);
            let shortcut = if before == own { 0 } else { own };
            let maps = (2 * before + own).max(before + 3 * own + shortcut);
            product(&[maps, height.div_ceil(1 << level), width.div_ceil(1 << level)])
        });
        levels.max().unwrap_or(0).saturating_mul(ACTIVATION)
    }
}

impl AutoencoderTiny {
    /// The memory that decoding one picture of `height` x `width` pixels takes beside the weights, in bytes: the input, the
    /// hidden state and the output of a convolution at full size, with the 64 channels that all published ones have.
    pub fn decode_workspace(height: usize, width: usize) -> u64 {
        product(&[3 * 64, height, width]).saturating_mul(ACTIVATION)
    }
}

impl UnetConfig {
    /// The memory that one forward pass takes beside the weights, in bytes, for `batch` latents of `height` x
    /// `width`.
    ///
    /// The most is held on the way up, in the first layer of a level: the state from below, its union with a
    /// state of the way down, and either the normalised union and the result, or what a transformer block holds.
    /// The states of the way down that are still waited for add to it. About as much again is kept for later layers
    /// and steps ([`Workspace`](crate::nn::Workspace)), but no more than that allows.
    pub fn workspace(&self, batch: usize, height: usize, width: usize) -> u64 {
        let channels = &self.block_out_channels;
        let (mut waiting, mut most) = (0u64, 0);
        for (level, &own) in channels.iter().enumerate() {
            let maps = |channels: usize| {
                product(&[channels, height.div_ceil(1 << level), width.div_ceil(1 << level)])
            };
            let below = channels.get(level + 1).copied().unwrap_or(own);
            let joined = below + own;
            let attends = self.down_block_types.get(level).is_some_and(|name| name.starts_with("CrossAttn"));
            let block = if attends { TRANSFORMER_STATES * own } else { joined + own };
            waiting = waiting.saturating_add(maps(WAITING_STATES * own));
            most = most.max(waiting.saturating_add(maps(below + joined + block)));
        }
        let held = most.saturating_mul(batch as u64).saturating_mul(ACTIVATION);
        held.saturating_add(held.min(KEPT))
    }
}

impl ControlNetConfig {
    /// The memory that what a ControlNet adds to the UNet's states takes, in bytes, for `batch` latents of `height` x
    /// `width`.
    pub fn residual_bytes(&self, batch: usize, height: usize, width: usize) -> u64 {
        let skips = self.unet.skips();
        let maps = skips.iter().chain(skips.last()).map(|skip| {
            let side = |side: usize| side.div_ceil(1 << skip.halvings);
            product(&[skip.channels, side(height), side(width)])
        });
        let values = maps.fold(0u64, u64::saturating_add);
        values.saturating_mul(batch as u64).saturating_mul(ACTIVATION)
    }
}

/// What waits for later layers at most, in bytes.
const KEPT: u64 = 512 << 20;
/// States that a transformer block holds at most: its input and residual, queries, keys and values with their packed
/// copies, or the inside of its feed-forward, four times as wide.
const TRANSFORMER_STATES: usize = 10;
/// States of a level that the way up waits for.
const WAITING_STATES: usize = 3;

fn product(factors: &[usize]) -> u64 {
    factors.iter().fold(1u64, |product, factor| product.saturating_mul(*factor as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: f64 = 1e6;

    /// Thirteen maps for each of two samples, counted by hand.
    #[test]
    fn residuals_are_as_large_as_the_states_that_they_are_added_to() {
        let at = |side: usize, channels: usize| channels * side * side;
        let fine = 3 * at(64, 320) + at(32, 320) + 2 * at(32, 640) + at(16, 640);
        let coarse = 2 * at(16, 1280) + 3 * at(8, 1280) + at(8, 1280);
        let told = ControlNetConfig::default().residual_bytes(2, 64, 64);
        assert_eq!(told, (2 * 4 * (fine + coarse)) as u64);
    }

    /// Peaks beside the weights that full-size models with random weights reached: `VmHWM` on Linux, f32, avx512.
    #[test]
    fn estimates_are_near_what_was_measured() {
        let near = |what: &str, told: u64, measured: f64| {
            let ratio = told as f64 / MB / measured;
            assert!(
                (0.85..1.15).contains(&ratio),
                "{what}: told {} MB, measured {measured}",
                told as f64 / MB
            );
        };
        let sd15 = UnetConfig::default();
        near("a step of SD 1.5 at 512 pixels", sd15.workspace(2, 64, 64), 427.0);
        near("a step of SD 1.5 at 768 pixels", sd15.workspace(2, 96, 96), 799.0);
        near("a step of four pictures at 256 pixels", sd15.workspace(8, 32, 32), 372.0);
        let sdxl = r#"{"block_out_channels": [320, 640, 1280],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]}"#;
        let sdxl: UnetConfig = serde_json::from_str(sdxl).unwrap();
        near("a step of SDXL at 1024 pixels", sdxl.workspace(2, 128, 128), 1029.0);

        let vae = VaeConfig { block_out_channels: vec![128, 256, 512, 512], ..VaeConfig::default() };
        near("decoding 512 pixels", vae.decode_workspace(512, 512), 845.0);
        near("decoding 768 x 512 pixels", vae.decode_workspace(512, 768), 1222.0);
        near("decoding 1024 pixels", vae.decode_workspace(1024, 1024), 3342.0);
    }
}
