//! The whole UNet.

use candle_core::{D, Tensor};

use super::UnetConfig;
use super::blocks::{Condition, DownBlock, MidBlock, UpBlock};
use crate::nn::{
    Activation, Conv2d, ConvConfig, FeatureMap, GroupNorm, Linear, Seamless, Sequence, sinusoidal_embedding,
};
use crate::{Error, Result, Weights};

/// Predicts the noise (or velocity) in latents at given timesteps.
#[derive(Debug)]
pub struct Unet2DConditionModel {
    conv_in: Conv2d,
    time_embedding: TimestepEmbedding,
    add_embedding: Option<TimestepEmbedding>,
    down_blocks: Vec<DownBlock>,
    mid_block: Option<MidBlock>,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    config: UnetConfig,
}

/// SDXL's conditions beside the prompt.
#[derive(Debug, Clone)]
pub struct AddedCondition {
    /// The projected pooled text state, `(batch, projection_dim)`.
    pub text_embeds: Tensor,
    /// For each sample: original height and width, crop top and left, target height and width, in pixels.
    pub time_ids: Vec<[f64; 6]>,
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
}

impl Unet2DConditionModel {
    /// Loads the model. `config_file` names the configuration in error messages.
    ///
    /// # Errors
    /// As [`UnetConfig::check`] and [`Weights::tensor`].
    pub fn load(weights: &Weights, config: UnetConfig, config_file: &str) -> Result<Self> {
        config.check(config_file)?;
        let levels = config.block_out_channels.len();
        let first = config.block_out_channels[0];
        let time_dim = 4 * first;
        Ok(Self {
            conv_in: Conv2d::load(
                &weights.child("conv_in"),
                config.in_channels,
                first,
                ConvConfig::SAME_3X3,
            )?,
            time_embedding: TimestepEmbedding::load(
                &weights.child("time_embedding"),
                first,
                time_dim,
                config.time_cond_proj_dim,
            )?,
            add_embedding: match config.projection_class_embeddings_input_dim {
                Some(width) if config.addition_embed_type.is_some() => {
                    Some(TimestepEmbedding::load(&weights.child("add_embedding"), width, time_dim, None)?)
                }
                _ => None,
            },
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
        })
    }

    /// The configuration it was loaded with.
    pub fn config(&self) -> &UnetConfig {
        &self.config
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
        let time = self.embed_time(timesteps, inputs, text)?;
        let activated = Sequence::from_vectors(&Activation::Silu.apply(&time)?)?;
        let states = Sequence::from_tensor(text)?;
        let condition = Condition { time: &activated, text: &states };

        let sample = FeatureMap::from_nchw(&sample.to_dtype(text.dtype())?)?.with_seamless(inputs.seamless);
        let mut state = self.conv_in.forward(&sample)?;
        let mut skips = vec![state.clone()];
        for block in &self.down_blocks {
            state = block.forward(state, condition, &mut skips)?;
        }
        if let Some(block) = &self.mid_block {
            state = block.forward(&state, condition)?;
        }
        for block in &self.up_blocks {
            state = block.forward(state, condition, &mut skips)?;
        }
        let output = self.conv_out.forward(&self.conv_norm_out.forward_silu(&state)?)?;
        Ok(output.to_nchw()?.to_dtype(dtype)?)
    }

    /// The embedding of timesteps and added conditions, `(batch, time_dim)` in the dtype of `text`.
    fn embed_time(&self, timesteps: &[f64], inputs: UnetInputs<'_>, text: &Tensor) -> Result<Tensor> {
        let config = &self.config;
        let embed = |values: &[f64], dim: usize| {
            sinusoidal_embedding(values, dim, config.flip_sin_to_cos, config.freq_shift, text.device())
        };
        let steps = embed(timesteps, config.block_out_channels[0])?.to_dtype(text.dtype())?;
        let guidance = match config.time_cond_proj_dim {
            // The reference's `get_guidance_scale_embedding`: sines first, whatever the timesteps have.
            Some(dim) if !inputs.guidance_scales.is_empty() => {
                let scales: Vec<f64> =
                    inputs.guidance_scales.iter().map(|scale| (scale - 1.0) * 1000.0).collect();
                Some(sinusoidal_embedding(&scales, dim, false, 1.0, text.device())?.to_dtype(text.dtype())?)
            }
            _ => None,
        };
        let time = self.time_embedding.forward(&steps, guidance.as_ref())?;
        let (Some(add_embedding), Some(dim)) = (&self.add_embedding, config.addition_time_embed_dim) else {
            return Ok(time);
        };
        let Some(added) = inputs.added else {
            return Err(Error::UnsupportedConfig {
                file: "unet/config.json".into(),
                field: "addition_embed_type".into(),
                found: "text_time".into(),
                supported: "a call with pooled text and sizes".into(),
            });
        };
        let ids: Vec<f64> = added.time_ids.iter().flatten().copied().collect();
        let sizes = embed(&ids, dim)?.reshape((added.time_ids.len(), 6 * dim))?.to_dtype(text.dtype())?;
        let joined = Tensor::cat(&[&added.text_embeds.to_dtype(text.dtype())?, &sizes], D::Minus1)?;
        Ok((time + add_embedding.forward(&joined, None)?)?)
    }
}

/// Two linear layers with a SiLU between them; reference `diffusers.models.embeddings.TimestepEmbedding`.
#[derive(Debug)]
struct TimestepEmbedding {
    cond_proj: Option<Linear>,
    linear_1: Linear,
    linear_2: Linear,
}

impl TimestepEmbedding {
    /// `condition`: the width of what is added to the input, if anything is.
    fn load(
        weights: &Weights,
        in_features: usize,
        out_features: usize,
        condition: Option<usize>,
    ) -> Result<Self> {
        // Every value of the network depends on these few: on the CPU they stay f32 whatever the others are.
        let weights = weights.with_dtype(weights.activation_dtype());
        let cond_proj =
            condition.map(|width| Linear::load_without_bias(&weights.child("cond_proj"), width, in_features));
        Ok(Self {
            cond_proj: cond_proj.transpose()?,
            linear_1: Linear::load(&weights.child("linear_1"), in_features, out_features)?,
            linear_2: Linear::load(&weights.child("linear_2"), out_features, out_features)?,
        })
    }

    fn forward(&self, input: &Tensor, condition: Option<&Tensor>) -> Result<Tensor> {
        let input = match (&self.cond_proj, condition) {
            (Some(projection), Some(condition)) => {
                (input + projection.forward(&Sequence::from_vectors(condition)?)?.to_vectors()?)?
            }
            _ => input.clone(),
        };
        let inner = self.linear_1.forward_activated(&Sequence::from_vectors(&input)?, Activation::Silu)?;
        self.linear_2.forward(&inner)?.to_vectors()
    }
}
