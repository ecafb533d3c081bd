//! The whole UNet.

use std::sync::Arc;

use candle_core::Tensor;

use super::blocks::{Condition, DownBlock, MidBlock, UpBlock};
use super::embed::TimeCondition;
use super::{AddedCondition, Residuals, UnetConfig};
use crate::nn::{Conv2d, ConvConfig, FeatureMap, GroupNorm, Seamless, Sequence};
use crate::{Layers, Result, Weights};

/// Predicts the noise (or velocity) in latents at given timesteps.
#[derive(Debug)]
pub struct Unet2DConditionModel {
    conv_in: Conv2d,
    time: TimeCondition,
    down_blocks: Vec<DownBlock>,
    mid_block: Option<MidBlock>,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    config: UnetConfig,
    layers: Arc<Layers>,
}

/// What the UNet is given beside latents, timesteps and text.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnetInputs<'a> {
    /// Needed by models with `text_time` embeddings.
    pub added: Option<&'a AddedCondition>,
    /// The guidance scale for each sample, or none: a condition of models that were distilled with guidance
    /// ([`UnetConfig::time_cond_proj_dim`]). Others take no notice.
    pub guidance_scales: &'a [f64],
    /// Which edges of the picture meet.
    pub seamless: Seamless,
    /// What ControlNets add to the states of the way down and of the middle.
    pub control: Option<&'a Residuals>,
}

impl Unet2DConditionModel {
    /// Loads the model. `config_file` names the configuration in error messages.
    ///
    /// # Errors
    /// As [`UnetConfig::check`] and [`Weights::tensor`].
    pub fn load(weights: &Weights, config: UnetConfig, config_file: &str) -> Result<Self> {
        config.check(config_file)?;
        let weights = &weights.recording();
        let levels = config.block_out_channels.len();
        let first = config.block_out_channels[0];
        Ok(Self {
            conv_in: Conv2d::load(
                &weights.child("conv_in"),
                config.in_channels,
                first,
                ConvConfig::SAME_3X3,
            )?,
            time: TimeCondition::load(weights, &config)?,
            down_blocks: (0..levels)
                .map(|i| DownBlock::load(&weights.child(format!("down_blocks.{i}")), i, &config))
                .collect::<Result<_>>()?,
            mid_block: match config.mid_block_type {
                Some(_) => Some(MidBlock::load(&weights.child("mid_block"), &config)?),
                None => None,
            },
            up_blocks: (0..levels)
                .map(|i| UpBlock::load(&weights.child(format!("up_blocks.{i}")), i, &config))
                .collect::<Result<_>>()?,
            conv_norm_out: GroupNorm::load(
                &weights.child("conv_norm_out"),
                first,
                config.norm_num_groups,
                config.norm_eps,
            )?,
            conv_out: Conv2d::load(
                &weights.child("conv_out"),
                first,
                config.out_channels,
                ConvConfig::SAME_3X3,
            )?,
            config,
            layers: Arc::clone(weights.layers()),
        })
    }

    /// The configuration it was loaded with.
    pub fn config(&self) -> &UnetConfig {
        &self.config
    }

    /// The layers that it consists of, to load its adapted forms with.
    pub fn layers(&self) -> &Arc<Layers> {
        &self.layers
    }

    /// The prediction for `sample` `(batch, in_channels, height, width)`, each at its own timestep.
    ///
    /// `text` is `(batch, tokens, cross_attention_dim)`; `added` is needed by models with `text_time` embeddings.
    /// The result is `(batch, out_channels, height, width)` in the sample's dtype.
    ///
    /// # Errors
    /// When shapes do not fit, `added` is missing, or on device errors.
    pub fn forward(
        &self,
        sample: &Tensor,
        timesteps: &[f64],
        text: &Tensor,
        added: Option<&AddedCondition>,
    ) -> Result<Tensor> {
        self.forward_with(sample, timesteps, text, UnetInputs { added, ..UnetInputs::default() })
    }

    /// As [`forward`](Self::forward), with all that a UNet can be given.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_with(
        &self,
        sample: &Tensor,
        timesteps: &[f64],
        text: &Tensor,
        inputs: UnetInputs<'_>,
    ) -> Result<Tensor> {
        let dtype = sample.dtype();
        let time = self.time.forward(&self.config, timesteps, inputs, text)?;
        let states = Sequence::from_tensor(text)?;
        let condition = Condition { time: &time, text: &states };

        let sample = FeatureMap::from_nchw(&sample.to_dtype(text.dtype())?)?.with_seamless(inputs.seamless);
        let mut state = self.conv_in.forward(&sample)?;
        let mut skips = vec![state.clone()];
        for block in &self.down_blocks {
            state = block.forward(state, condition, &mut skips)?;
        }
        if let Some(block) = &self.mid_block {
            state = block.forward(&state, condition)?;
        }
        if let Some(control) = inputs.control {
            skips = control.added_to(&skips)?;
            state = state.add_to_last(&control.middle)?;
        }
        for block in &self.up_blocks {
            state = block.forward(state, condition, &mut skips)?;
        }
        let output = self.conv_out.forward(&self.conv_norm_out.forward_silu(&state)?)?;
        Ok(output.to_nchw()?.to_dtype(dtype)?)
    }
}
