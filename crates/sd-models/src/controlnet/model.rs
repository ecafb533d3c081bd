//! The whole ControlNet.

use candle_core::Tensor;

use super::ControlNetConfig;
use super::hint::HintEmbedding;
use crate::nn::{Conv2d, ConvConfig, ConvInputs, FeatureMap, Seamless, Sequence};
use crate::unet::{AddedCondition, Condition, DownBlock, MidBlock, Residuals, TimeCondition, UnetInputs};
use crate::{Result, Weights};

/// A copy of a UNet's way down and middle that sees a control picture and says what to add to the UNet's states.
#[derive(Debug)]
pub struct ControlNetModel {
    hint: HintEmbedding,
    conv_in: Conv2d,
    time: TimeCondition,
    down_blocks: Vec<DownBlock>,
    mid_block: Option<MidBlock>,
    /// Pointwise convolutions that were zero when training began, one for each state of the way down.
    zero_convolutions: Vec<Conv2d>,
    zero_convolution_middle: Conv2d,
    config: ControlNetConfig,
}

/// How strongly a ControlNet's residuals count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Emphasis {
    /// All alike, times this.
    Even(f64),
    /// A tenth at the finest level, rising to all in the middle, times this: guess mode.
    Rising(f64),
}

impl Emphasis {
    /// The factor of residual `index` of `count`; the middle's is the last.
    fn factor(self, index: usize, count: usize) -> f32 {
        match self {
            Self::Even(scale) => scale as f32,
            Self::Rising(scale) => {
                // From 10^-1 to 10^0 in even steps of the exponent; the reference computes in f32.
                let exponent = -1.0 + index as f64 / (count.max(2) - 1) as f64;
                10f64.powf(exponent) as f32 * scale as f32
            }
        }
    }
}

impl ControlNetModel {
    /// Loads the model. `config_file` names the configuration in error messages.
    ///
    /// # Errors
    /// As [`ControlNetConfig::check`] and [`Weights::tensor`].
    pub fn load(weights: &Weights, config: ControlNetConfig, config_file: &str) -> Result<Self> {
        let config = config.with_way_up();
        config.check(config_file)?;
        let unet = &config.unet;
        let first = unet.block_out_channels[0];
        let zero = |name: String, channels: usize| {
            Conv2d::load(&weights.child(name), channels, channels, ConvConfig::POINTWISE)
        };
        let states = unet.skips();
        let last = states.last().map_or(first, |skip| skip.channels);
        Ok(Self {
            hint: HintEmbedding::load(&weights.child("controlnet_cond_embedding"), &config)?,
            conv_in: Conv2d::load(&weights.child("conv_in"), unet.in_channels, first, ConvConfig::SAME_3X3)?,
            time: TimeCondition::load(weights, unet)?,
            down_blocks: (0..unet.block_out_channels.len())
                .map(|i| DownBlock::load(&weights.child(format!("down_blocks.{i}")), i, unet))
                .collect::<Result<_>>()?,
            mid_block: match unet.mid_block_type {
                Some(_) => Some(MidBlock::load(&weights.child("mid_block"), unet)?),
                None => None,
            },
            zero_convolutions: (states.iter().enumerate())
                .map(|(i, skip)| zero(format!("controlnet_down_blocks.{i}"), skip.channels))
                .collect::<Result<_>>()?,
            zero_convolution_middle: zero("controlnet_mid_block".into(), last)?,
            config,
        })
    }

    /// The configuration it was loaded with.
    pub fn config(&self) -> &ControlNetConfig {
        &self.config
    }

    /// What the net sees of a control picture `(batch, 3, height, width)` in 0..=1, RGB: as large as the latents,
    /// `scale_factor` times smaller. It does not change from step to step. The edges of the picture, and of what it steers, meet as
    /// `seamless` says.
    ///
    /// # Errors
    /// When the picture has not three channels, or on device errors.
    pub fn embed(&self, picture: &Tensor, seamless: Seamless) -> Result<FeatureMap> {
        let colour = |index| picture.narrow(1, index, 1);
        let flipped = match self.config.controlnet_conditioning_channel_order.as_str() {
            "bgr" => Some(Tensor::cat(&[colour(2)?, colour(1)?, colour(0)?], 1)?),
            _ => None,
        };
        let picture = flipped.as_ref().unwrap_or(picture);
        self.hint.forward(&FeatureMap::from_nchw(picture)?.with_seamless(seamless))
    }

    /// What to add to the UNet's states for `sample` `(batch, in_channels, height, width)`, each at its own timestep.
    ///
    /// `text` and `added` are as for the UNet, `hint` is what [`ControlNetModel::embed`] gave: for each sample, or one for
    /// all of them.
    ///
    /// # Errors
    /// When shapes do not fit, `added` is missing, or on device errors.
    pub fn forward(
        &self,
        sample: &Tensor,
        timesteps: &[f64],
        text: &Tensor,
        added: Option<&AddedCondition>,
        hint: &FeatureMap,
        emphasis: Emphasis,
    ) -> Result<Residuals> {
        let inputs = UnetInputs { added, ..UnetInputs::default() };
        let time = self.time.forward(&self.config.unet, timesteps, inputs, text)?;
        let states = Sequence::from_tensor(text)?;
        let condition = Condition { time: &time, text: &states };

        let sample = FeatureMap::from_nchw(&sample.to_dtype(text.dtype())?)?.with_seamless(hint.seamless());
        let hint = hint.repeated(sample.dims().0)?;
        let inputs = ConvInputs { residual: Some(&hint), ..ConvInputs::default() };
        let mut state = self.conv_in.forward_with(&sample, inputs)?;
        let mut skips = vec![state.clone()];
        for block in &self.down_blocks {
            state = block.forward(state, condition, &mut skips)?;
        }
        if let Some(block) = &self.mid_block {
            state = block.forward(&state, condition)?;
        }

        let count = skips.len() + 1;
        let skips = skips.iter().zip(&self.zero_convolutions).enumerate();
        let skips = skips.map(|(i, (state, zero))| zero.forward(state)?.scaled(emphasis.factor(i, count)));
        let middle = self.zero_convolution_middle.forward(&state)?;
        Ok(Residuals {
            skips: skips.collect::<Result<_>>()?,
            middle: middle.scaled(emphasis.factor(count - 1, count))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `torch.logspace(-1, 0, 4)`, torch 2.15.0.
    #[test]
    fn emphasis_rises_from_a_tenth_to_all() {
        let rising: Vec<f32> = (0..4).map(|i| Emphasis::Rising(1.0).factor(i, 4)).collect();
        for (found, expected) in rising.into_iter().zip([0.1, 0.215_443_47, 0.464_158_9, 1.0]) {
            assert!((found - expected).abs() < 1e-6, "{found}, {expected}");
        }
        assert_eq!(Emphasis::Rising(0.5).factor(3, 4), 0.5);
        assert_eq!(Emphasis::Even(0.7).factor(1, 4), 0.7);
    }
}
