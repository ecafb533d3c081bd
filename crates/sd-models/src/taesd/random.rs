//! The published network with random weights, for measuring.

use std::path::Path;

use candle_core::{DType, Device};

use super::AutoencoderTiny;
use super::layers::{Layer, Layers};
use crate::nn::{Conv2d, ConvConfig};
use crate::{Result, Weights};

/// The channels of all published ones.
const CHANNELS: usize = 64;
/// Residual blocks at each size, the smallest first.
const BLOCKS: [usize; 4] = [3, 3, 3, 1];

impl AutoencoderTiny {
    /// A decoder of TAESD's shape with random weights, for measuring speed and memory where no file is at hand. Its pictures
    /// show nothing.
    ///
    /// # Errors
    /// Device errors.
    pub fn random(latent_channels: usize, device: &Device, dtype: DType) -> Result<Self> {
        let weights = Weights::random(0x7ae5d, device, dtype);
        let decoder = Layers::random_decoder(&weights, latent_channels)?;
        Ok(Self { encoder: None, decoder, dtype: weights.activation_dtype() })
    }

    /// What the weights of the network at `path` will take in memory, in bytes. Reads only headers.
    ///
    /// # Errors
    /// As [`AutoencoderTiny::open`].
    pub fn loaded_bytes(path: &Path, device: &Device, dtype: DType) -> Result<u64> {
        Ok(Self::weights(path, device, dtype)?.loaded_bytes())
    }
}

impl Layers {
    fn random_decoder(weights: &Weights, latent_channels: usize) -> Result<Self> {
        let conv = |name: String, inputs: usize, outputs: usize| {
            Conv2d::load(&weights.child(name), inputs, outputs, ConvConfig::SAME_3X3)
        };
        let mut layers = vec![Layer::ConvRelu(conv("in".into(), latent_channels, CHANNELS)?)];
        for (level, blocks) in BLOCKS.into_iter().enumerate() {
            if level > 0 {
                let name = weights.child(format!("{level}.up"));
                let doubled = Conv2d::load_unbiased(&name, CHANNELS, CHANNELS, ConvConfig::SAME_3X3)?;
                layers.push(Layer::DoubledConv(doubled));
            }
            for block in 0..blocks {
                let part = |part: usize| conv(format!("{level}.{block}.{part}"), CHANNELS, CHANNELS);
                layers.push(Layer::Block([part(0)?, part(1)?, part(2)?]));
            }
        }
        layers.push(Layer::Conv(conv("out".into(), CHANNELS, 3)?));
        Ok(Self::new(layers, latent_channels, BLOCKS.len() - 1))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Tensor;

    use super::*;
    use crate::Error;
    use crate::nn::Seamless;

    /// TAESD's decoder has 35 convolutions; a pause before each can end the work.
    #[test]
    fn it_has_the_published_shape_and_can_be_stopped_between_convolutions() {
        let tiny = AutoencoderTiny::random(4, &Device::Cpu, DType::F32).unwrap();
        assert_eq!((tiny.latent_channels(), tiny.scale_factor()), (4, 8));
        let latents = Tensor::randn(0f32, 1.0, (1, 4, 3, 2), &Device::Cpu).unwrap();
        let mut pauses = 0;
        let mut count = || {
            pauses += 1;
            Ok(())
        };
        let whole = tiny.decode_in_pieces(&latents, Seamless::default(), &mut count).unwrap();
        assert_eq!((whole.dims(), pauses), (&[1, 3, 24, 16][..], 35));
        let mut left = 10;
        let mut stop = || {
            left -= 1;
            if left > 0 { Ok(()) } else { Err(Error::Stopped) }
        };
        let stopped = tiny.decode_in_pieces(&latents, Seamless::default(), &mut stop);
        assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
        assert_eq!(left, 0, "nothing is asked after the end");
    }
}
