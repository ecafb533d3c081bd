//! The text transformer (Radford et al., 2021); reference `transformers.CLIPTextModel`.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::ClipTextConfig;
use crate::nn::{Activation, Attention, AttentionConfig, Embedding, LayerNorm, Linear, Mask, Sequence};
use crate::{Error, Layers, Result, Weights};

/// A CLIP text encoder.
#[derive(Debug)]
pub struct ClipTextModel {
    token_embedding: Embedding,
    position_embedding: Embedding,
    layers: Vec<EncoderLayer>,
    final_layer_norm: LayerNorm,
    text_projection: Option<Linear>,
    config: ClipTextConfig,
    device: Device,
    loaded: Arc<Layers>,
}

/// Everything a pipeline may take from the encoder.
#[derive(Debug)]
pub struct ClipOutput {
    /// The embeddings, then the state after each layer: `num_hidden_layers + 1` tensors `(batch, length, hidden)`.
    pub hidden_states: Vec<Tensor>,
    /// The last state after the final layer norm.
    pub last_hidden_state: Tensor,
    /// The state at the end token, projected where the model has a projection: `(batch, projection_dim)`.
    pub pooled: Tensor,
}

/// Learned vectors that stand in a sequence where token embeddings would: a textual inversion at work.
#[derive(Debug, Clone)]
pub struct Replacement {
    /// Which sequence of the batch.
    pub row: usize,
    /// The position of the first vector in it, the start token counted.
    pub position: usize,
    /// `(vectors, hidden_size)`, in the model's number format and on its device.
    pub vectors: Tensor,
}

impl ClipTextModel {
    /// Loads the encoder. `config_file` names the configuration in error messages.
    ///
    /// # Errors
    /// [`Error::UnsupportedConfig`] as [`ClipTextConfig::check`] and for an unknown activation; otherwise as
    /// [`Weights::tensor`].
    pub fn load(weights: &Weights, config: ClipTextConfig, config_file: &str) -> Result<Self> {
        config.check(config_file)?;
        let weights = &weights.recording();
        let activation =
            Activation::from_name(&config.hidden_act).ok_or_else(|| Error::UnsupportedConfig {
                file: config_file.into(),
                field: "hidden_act".into(),
                found: config.hidden_act.clone(),
                supported: "quick_gelu, gelu, silu".into(),
            })?;
        // Some exporters leave the wrapping module's name away.
        let text = match weights.contains("text_model.embeddings.token_embedding.weight") {
            true => weights.child("text_model"),
            false => weights.clone(),
        };
        let embeddings = text.child("embeddings");
        let layers = (0..config.num_hidden_layers)
            .map(|layer| {
                EncoderLayer::load(&text.child(format!("encoder.layers.{layer}")), &config, activation)
            })
            .collect::<Result<_>>()?;
        let text_projection = match config.has_projection() {
            true => Some(Linear::load_without_bias(
                &weights.child("text_projection"),
                config.hidden_size,
                config.projection_dim,
            )?),
            false => None,
        };
        Ok(Self {
            token_embedding: Embedding::load(
                &embeddings.child("token_embedding"),
                config.vocab_size,
                config.hidden_size,
            )?,
            position_embedding: Embedding::load(
                &embeddings.child("position_embedding"),
                config.max_position_embeddings,
                config.hidden_size,
            )?,
            layers,
            final_layer_norm: LayerNorm::load(
                &text.child("final_layer_norm"),
                config.hidden_size,
                config.layer_norm_eps,
            )?,
            text_projection,
            config,
            device: weights.device().clone(),
            loaded: Arc::clone(weights.layers()),
        })
    }

    /// The configuration it was loaded with.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// The number format of token embeddings.
    pub fn dtype(&self) -> DType {
        self.token_embedding.dtype()
    }

    /// The layers that it consists of, to load its adapted forms with.
    pub fn layers(&self) -> &Arc<Layers> {
        &self.loaded
    }

    /// The layer norm that ends the encoder, for pipelines that pick an earlier state.
    ///
    /// # Errors
    /// Device errors.
    pub fn final_layer_norm(&self, state: &Tensor) -> Result<Tensor> {
        self.final_layer_norm.forward_precise(&Sequence::from_tensor(state)?)?.to_tensor()
    }

    /// Encodes token ids; all sequences have one length.
    ///
    /// # Errors
    /// When an id is outside the vocabulary, a sequence is too long, or on device errors.
    pub fn forward(&self, ids: &[Vec<u32>]) -> Result<ClipOutput> {
        self.forward_replaced(ids, &[])
    }

    /// As [`ClipTextModel::forward`], with the embeddings of some tokens replaced. Which ids stand there matters only
    /// for where the sequence ends: use 0.
    ///
    /// # Errors
    /// As [`ClipTextModel::forward`], and when a replacement leaves its sequence.
    pub fn forward_replaced(&self, ids: &[Vec<u32>], replacements: &[Replacement]) -> Result<ClipOutput> {
        let length = ids.first().map_or(0, Vec::len);
        let flat: Vec<u32> = ids.iter().flatten().copied().collect();
        let tokens = Tensor::from_vec(flat, (ids.len(), length), &self.device)?;
        let positions = self.position_embedding.first(length)?;
        let mut embedded = self.token_embedding.forward(&tokens)?;
        for Replacement { row, position, vectors } in replacements {
            let (count, width) = vectors.dims2()?;
            let place = [*row..row + 1, *position..position + count, 0..width];
            embedded = embedded.slice_assign(&place, &vectors.unsqueeze(0)?)?;
        }
        let embedded = embedded.broadcast_add(&positions)?;
        let mut state = Sequence::from_tensor(&embedded)?;
        let mut hidden_states = vec![embedded];
        for layer in &self.layers {
            state = layer.forward(&state)?;
            hidden_states.push(state.to_tensor()?);
        }
        let last_hidden_state = self.final_layer_norm.forward_precise(&state)?.to_tensor()?;

        let rows = ids
            .iter()
            .enumerate()
            .map(|(row, ids)| last_hidden_state.get(row)?.get(self.pooled_position(ids)))
            .collect::<candle_core::Result<Vec<_>>>()?;
        let mut pooled = Tensor::stack(&rows, 0)?;
        if let Some(projection) = &self.text_projection {
            pooled = projection.forward(&Sequence::from_vectors(&pooled)?)?.to_vectors()?;
        }
        Ok(ClipOutput { hidden_states, last_hidden_state, pooled })
    }

    /// Where the sequence ends: at the first end token; for old configurations at the first of the largest id.
    fn pooled_position(&self, ids: &[u32]) -> usize {
        let wanted = match self.config.eos_token_id {
            2 => ids.iter().copied().max().unwrap_or(0),
            id => id,
        };
        ids.iter().position(|&id| id == wanted).unwrap_or(0)
    }
}

#[derive(Debug)]
struct EncoderLayer {
    layer_norm1: LayerNorm,
    self_attn: Attention,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
}

impl EncoderLayer {
    fn load(weights: &Weights, config: &ClipTextConfig, activation: Activation) -> Result<Self> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let scope = weights.child("self_attn");
        let attention = AttentionConfig {
            width,
            context_width: width,
            heads: config.num_attention_heads,
            bias: true,
            mask: Mask::Causal,
        };
        Ok(Self {
            layer_norm1: LayerNorm::load(&weights.child("layer_norm1"), width, config.layer_norm_eps)?,
            self_attn: Attention::load(
                ["q_proj", "k_proj", "v_proj", "out_proj"].map(|name| scope.child(name)),
                attention,
            )?,
            layer_norm2: LayerNorm::load(&weights.child("layer_norm2"), width, config.layer_norm_eps)?,
            fc1: Linear::load(&weights.child("mlp.fc1"), width, inner)?,
            fc2: Linear::load(&weights.child("mlp.fc2"), inner, width)?,
            activation,
        })
    }

    fn forward(&self, state: &Sequence) -> Result<Sequence> {
        let normed = self.layer_norm1.forward(state)?;
        let state = self.self_attn.forward(&normed, &normed, state)?;
        let inner = self.fc1.forward_activated(&self.layer_norm2.forward(&state)?, self.activation)?;
        self.fc2.forward_residual(&inner, &state)
    }
}
