//! What a UNet and its ControlNets make of timesteps and of SDXL's added conditions.

use candle_core::{D, Tensor};

use super::{UnetConfig, UnetInputs};
use crate::nn::{Activation, Linear, Sequence, sinusoidal_embedding};
use crate::{Error, Result, Weights};

/// SDXL's conditions beside the prompt.
#[derive(Debug, Clone)]
pub struct AddedCondition {
    /// The projected pooled text state, `(batch, projection_dim)`.
    pub text_embeds: Tensor,
    /// For each sample as many numbers as the model has ([`UnetConfig::time_ids`]): original height and width, crop top
    /// and left, target height and width, in pixels; for a refiner the aesthetic score in place of the last two.
    pub time_ids: Vec<Vec<f64>>,
}

/// Timesteps, and where the model has them pooled text and sizes, to what conditions every residual block.
#[derive(Debug)]
pub(crate) struct TimeCondition {
    time_embedding: TimestepEmbedding,
    add_embedding: Option<TimestepEmbedding>,
}

impl TimeCondition {
    /// Loads `time_embedding` and, where the configuration has it, `add_embedding` of this scope.
    pub(crate) fn load(weights: &Weights, config: &UnetConfig) -> Result<Self> {
        let first = config.block_out_channels[0];
        let time_dim = 4 * first;
        Ok(Self {
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
        })
    }

    /// The SiLU of the embedding, `(batch, 1, time_dim)` in the dtype of `text`.
    pub(crate) fn forward(
        &self,
        config: &UnetConfig,
        timesteps: &[f64],
        inputs: UnetInputs<'_>,
        text: &Tensor,
    ) -> Result<Sequence> {
        let time = self.embed(config, timesteps, inputs, text)?;
        Sequence::from_vectors(&Activation::Silu.apply(&time)?)
    }

    fn embed(
        &self,
        config: &UnetConfig,
        timesteps: &[f64],
        inputs: UnetInputs<'_>,
        text: &Tensor,
    ) -> Result<Tensor> {
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
        let rows = added.time_ids.len();
        let each = ids.len() / rows.max(1);
        let sizes = embed(&ids, dim)?.reshape((rows, each * dim))?.to_dtype(text.dtype())?;
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
