//! What a safetensors file holds, told from the names and shapes of its tensors alone.

use crate::taesd;
use crate::tensor_index::TensorIndex;

/// The prefix of the UNet in a whole checkpoint.
pub(super) const UNET: &str = "model.diffusion_model.";
/// The prefix of the VAE in a whole checkpoint.
pub(super) const VAE: &str = "first_stage_model.";

/// What a safetensors file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// A whole model in the original naming.
    Checkpoint,
    /// The UNet alone.
    Unet,
    /// The VAE alone, in the original or the diffusers naming.
    Vae,
    /// A tiny autoencoder, which approximates the VAE.
    TinyVae,
    /// A CLIP text encoder alone.
    TextEncoder,
    /// A network that steers a UNet by a picture.
    ControlNet,
    /// Low-rank changes to a model's weights.
    Lora,
    /// Learnt embeddings of a new word (textual inversion).
    Embedding,
    /// A network that enlarges pictures.
    Upscaler,
    /// A model of a family that is not implemented here.
    Foreign,
    /// Nothing that is known here.
    Unknown,
}

impl FileKind {
    /// As messages and `models inspect` write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Unet => "unet",
            Self::Vae => "vae",
            Self::TinyVae => "tiny vae",
            Self::TextEncoder => "text encoder",
            Self::ControlNet => "controlnet",
            Self::Lora => "lora",
            Self::Embedding => "embedding",
            Self::Upscaler => "upscaler",
            Self::Foreign => "model of another family",
            Self::Unknown => "unknown",
        }
    }

    pub(crate) fn of(index: &TensorIndex) -> Self {
        let has = |key: &str| index.get(key).is_some();
        let any = |parts: &[&str]| index.iter().any(|(name, _)| parts.iter().any(|part| name.contains(part)));
        if any(&["joint_blocks.", "double_blocks.", "transformer_blocks.0.norm1_context."]) {
            return Self::Foreign;
        }
        // Before everything that a LoRA is named after.
        if any(&[
            "lora_up.",
            "lora_down.",
            ".lora_A.",
            ".lora_B.",
            ".lora.up.",
            ".lora.down.",
            ".hada_w1_",
            ".lokr_w",
        ]) {
            return Self::Lora;
        }
        if any(&["control_model.", "controlnet_cond_embedding.", "input_hint_block."]) {
            return Self::ControlNet;
        }
        if has(&format!("{UNET}input_blocks.0.0.weight")) {
            return Self::Checkpoint;
        }
        if has("input_blocks.0.0.weight") || has("conv_in.weight") && any(&["down_blocks.0.resnets.0.conv1."])
        {
            return Self::Unet;
        }
        if has("decoder.conv_in.weight") || has(&format!("{VAE}decoder.conv_in.weight")) {
            return Self::Vae;
        }
        if any(&["decoder.layers."]) && !any(&["self_attn."]) || taesd::names_half(has) {
            return Self::TinyVae;
        }
        if any(&["layers.0.self_attn.q_proj.weight", "resblocks.0.attn.in_proj_weight"]) {
            return Self::TextEncoder;
        }
        let wrapped = ["params_ema", "params", "module"];
        if has("conv_first.weight")
            || has("model.0.weight") && any(&["model.1.sub."])
            || wrapped.iter().any(|name| has(&format!("{name}.conv_first.weight")))
        {
            return Self::Upscaler;
        }
        let vectors = index.iter().all(|(_, location)| location.shape.len() <= 2);
        if vectors && !index.is_empty() && index.iter().count() <= 4 {
            return Self::Embedding;
        }
        Self::Unknown
    }
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    use super::*;
    use crate::files::FileBytes;
    use crate::tensor_index::TensorFile;

    fn kind(names: &[&str]) -> FileKind {
        let data = [0u8; 4];
        let tensors =
            names.iter().map(|name| (*name, TensorView::new(Dtype::F32, vec![1, 1, 1], &data[..4]).unwrap()));
        let bytes = safetensors::serialize(tensors, None).unwrap();
        let file = TensorFile { name: "x".into(), bytes: FileBytes::Shared(bytes.into()) };
        FileKind::of(&TensorIndex::read(vec![file]).unwrap())
    }

    #[test]
    fn files_are_known_by_their_tensors() {
        for (names, expected) in [
            (&["model.diffusion_model.input_blocks.0.0.weight"][..], FileKind::Checkpoint),
            (&["input_blocks.0.0.weight"], FileKind::Unet),
            (&["conv_in.weight", "down_blocks.0.resnets.0.conv1.weight"], FileKind::Unet),
            (&["decoder.conv_in.weight"], FileKind::Vae),
            (&["first_stage_model.decoder.conv_in.weight"], FileKind::Vae),
            (&["decoder.layers.0.weight"], FileKind::TinyVae),
            (&["1.weight", "3.conv.0.weight"], FileKind::TinyVae),
            (&["0.weight", "1.conv.0.weight"], FileKind::TinyVae),
            (&["taesd_decoder.1.weight", "taesd_decoder.3.conv.0.weight"], FileKind::TinyVae),
            (&["encoder.0.weight", "encoder.1.conv.0.weight"], FileKind::TinyVae),
            (&["1.weight", "0.weight"], FileKind::Unknown),
            (&["text_model.encoder.layers.0.self_attn.q_proj.weight"], FileKind::TextEncoder),
            (&["conv_in.weight", "controlnet_cond_embedding.conv_in.weight"], FileKind::ControlNet),
            (&["control_model.input_blocks.0.0.weight"], FileKind::ControlNet),
            (&["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"], FileKind::Lora),
            (&["unet.down_blocks.0.attentions.0.proj_in.lora_A.weight"], FileKind::Lora),
            (&["conv_first.weight"], FileKind::Upscaler),
            (&["model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"], FileKind::Foreign),
            (&["something.else"], FileKind::Unknown),
        ] {
            assert_eq!(kind(names), expected, "{names:?}");
        }
    }
}
