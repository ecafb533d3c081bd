//! From the names of the original latent-diffusion code to those of diffusers and transformers.
//!
//! Reference: `convert_ldm_unet_checkpoint`, `convert_ldm_vae_checkpoint` and `convert_open_clip_checkpoint` of
//! `diffusers.loaders.single_file_utils`.

use super::builtin::TextShape;
use crate::tensor_index::Location;

/// The tensors that one tensor of the file is seen as, by their names.
pub(super) type Views = Vec<(String, Location)>;

/// The number in front of the first dot, and the rest.
fn number(key: &str) -> Option<(usize, &str)> {
    let (number, rest) = key.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

/// Residual blocks in each level of the UNet whose names (without prefix) `has` knows: those before the first
/// change of resolution.
pub(super) fn unet_layers(has: impl Fn(&str) -> bool) -> usize {
    let inputs = (1..).take_while(|block| has(&format!("input_blocks.{block}.0.in_layers.0.weight"))).count();
    inputs.max(1)
}

/// A tensor of the UNet, `key` without `model.diffusion_model.`.
pub(super) fn unet(key: &str, layers: usize) -> Option<String> {
    let (part, rest) = key.split_once('.')?;
    match part {
        "time_embed" => embedding("time_embedding", rest),
        "label_emb" => embedding("add_embedding", rest.strip_prefix("0.")?),
        "out" => match number(rest)? {
            (0, rest) => Some(format!("conv_norm_out.{rest}")),
            (2, rest) => Some(format!("conv_out.{rest}")),
            _ => None,
        },
        "input_blocks" => {
            let (block, rest) = number(rest)?;
            let (slot, rest) = number(rest)?;
            let Some(index) = block.checked_sub(1) else {
                return (slot == 0).then(|| format!("conv_in.{rest}"));
            };
            let (level, layer) = (index / (layers + 1), index % (layers + 1));
            match (slot, rest.strip_prefix("op.")) {
                (0, Some(rest)) => Some(format!("down_blocks.{level}.downsamplers.0.conv.{rest}")),
                (0, None) => Some(format!("down_blocks.{level}.resnets.{layer}.{}", resnet(rest)?)),
                (1, None) => Some(format!("down_blocks.{level}.attentions.{layer}.{rest}")),
                _ => None,
            }
        }
        "middle_block" => match number(rest)? {
            (0, rest) => Some(format!("mid_block.resnets.0.{}", resnet(rest)?)),
            (1, rest) => Some(format!("mid_block.attentions.0.{rest}")),
            (2, rest) => Some(format!("mid_block.resnets.1.{}", resnet(rest)?)),
            _ => None,
        },
        "output_blocks" => {
            let (block, rest) = number(rest)?;
            let (slot, rest) = number(rest)?;
            let (level, layer) = (block / (layers + 1), block % (layers + 1));
            match (slot, rest.strip_prefix("conv.")) {
                (0, None) => Some(format!("up_blocks.{level}.resnets.{layer}.{}", resnet(rest)?)),
                // Behind the attention, or in its place in levels without.
                (1 | 2, Some(rest)) => Some(format!("up_blocks.{level}.upsamplers.0.conv.{rest}")),
                (1, None) => Some(format!("up_blocks.{level}.attentions.{layer}.{rest}")),
                _ => None,
            }
        }
        _ => None,
    }
}

fn embedding(name: &str, rest: &str) -> Option<String> {
    match number(rest)? {
        (0, rest) => Some(format!("{name}.linear_1.{rest}")),
        (2, rest) => Some(format!("{name}.linear_2.{rest}")),
        _ => None,
    }
}

fn resnet(key: &str) -> Option<String> {
    const NAMES: [(&str, &str); 6] = [
        ("in_layers.0.", "norm1."),
        ("in_layers.2.", "conv1."),
        ("emb_layers.1.", "time_emb_proj."),
        ("out_layers.0.", "norm2."),
        ("out_layers.3.", "conv2."),
        ("skip_connection.", "conv_shortcut."),
    ];
    NAMES.iter().find_map(|(old, new)| Some(format!("{new}{}", key.strip_prefix(old)?)))
}

/// Levels of the VAE whose names (without prefix) `has` knows.
pub(super) fn vae_levels(has: impl Fn(&str) -> bool) -> usize {
    (0..).take_while(|level| has(&format!("decoder.up.{level}.block.0.norm1.weight"))).count()
}

/// A tensor of the VAE, `key` without `first_stage_model.`.
pub(super) fn vae(key: &str, levels: usize, location: &Location) -> Views {
    let Some((name, attention)) = vae_name(key, levels) else { return Vec::new() };
    // The attention's projections are stored as 1x1 convolutions; newer folders have linear layers.
    let matrix = match location.shape[..] {
        [rows, columns, 1, 1] if attention => location.reshaped(vec![rows, columns]),
        _ => None,
    };
    vec![(name, matrix.unwrap_or_else(|| location.clone()))]
}

/// The tensor's name, and whether it belongs to an attention.
fn vae_name(key: &str, levels: usize) -> Option<(String, bool)> {
    let (coder, rest) = key.split_once('.')?;
    if matches!(coder, "quant_conv" | "post_quant_conv") {
        return Some((key.to_owned(), false));
    }
    if !matches!(coder, "encoder" | "decoder") {
        return None;
    }
    let (part, rest) = rest.split_once('.')?;
    let name = match part {
        "conv_in" | "conv_out" => format!("{part}.{rest}"),
        "norm_out" => format!("conv_norm_out.{rest}"),
        "mid" => {
            let (block, rest) = rest.split_once('.')?;
            match block {
                "block_1" => format!("mid_block.resnets.0.{rest}"),
                "block_2" => format!("mid_block.resnets.1.{rest}"),
                "attn_1" => {
                    let (layer, rest) = rest.split_once('.')?;
                    let layer = match layer {
                        "norm" => "group_norm",
                        "q" => "to_q",
                        "k" => "to_k",
                        "v" => "to_v",
                        "proj_out" => "to_out.0",
                        _ => return None,
                    };
                    return Some((format!("{coder}.mid_block.attentions.0.{layer}.{rest}"), true));
                }
                _ => return None,
            }
        }
        "down" | "up" => {
            let (level, rest) = number(rest)?;
            // The decoder counts from the picture; diffusers from the latents.
            let scope = match part {
                "down" => format!("down_blocks.{level}"),
                _ => format!("up_blocks.{}", levels.checked_sub(level + 1)?),
            };
            let (layer, rest) = rest.split_once('.')?;
            match layer {
                "block" => {
                    let (block, rest) = number(rest)?;
                    format!("{scope}.resnets.{block}.{}", rest.replace("nin_shortcut.", "conv_shortcut."))
                }
                "downsample" => format!("{scope}.downsamplers.0.{rest}"),
                "upsample" => format!("{scope}.upsamplers.0.{rest}"),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some((format!("{coder}.{name}"), false))
}

/// A tensor of an OpenCLIP text encoder, `key` without `cond_stage_model.model.`.
///
/// The files hold a layer more than some pipelines use; what lies behind the last one is left out.
pub(super) fn open_clip(key: &str, text: TextShape, location: &Location) -> Views {
    let whole = |name: String| vec![(name, location.clone())];
    match key {
        "positional_embedding" => return whole("text_model.embeddings.position_embedding.weight".into()),
        "token_embedding.weight" => return whole("text_model.embeddings.token_embedding.weight".into()),
        "text_projection" if text.projection => {
            let transposed = location.transposed().unwrap_or_else(|| location.clone());
            return vec![("text_projection.weight".into(), transposed)];
        }
        "text_projection.weight" if text.projection => return whole(key.into()),
        _ => {}
    }
    if let Some(rest) = key.strip_prefix("ln_final.") {
        return whole(format!("text_model.final_layer_norm.{rest}"));
    }
    let Some((layer, rest)) = key.strip_prefix("transformer.resblocks.").and_then(number) else {
        return Vec::new();
    };
    if layer >= text.layers {
        return Vec::new();
    }
    let scope = format!("text_model.encoder.layers.{layer}");
    // Queries, keys and values lie on top of each other.
    if let Some(kind) = rest.strip_prefix("attn.in_proj_") {
        let parts = ["q_proj", "k_proj", "v_proj"].into_iter().enumerate();
        return parts
            .map(|(part, name)| {
                let rows = location.rows(part, 3).unwrap_or_else(|| location.clone());
                (format!("{scope}.self_attn.{name}.{kind}"), rows)
            })
            .collect();
    }
    const NAMES: [(&str, &str); 5] = [
        ("ln_1.", "layer_norm1."),
        ("ln_2.", "layer_norm2."),
        ("attn.out_proj.", "self_attn.out_proj."),
        ("mlp.c_fc.", "mlp.fc1."),
        ("mlp.c_proj.", "mlp.fc2."),
    ];
    match NAMES.iter().find_map(|(old, new)| Some(format!("{scope}.{new}{}", rest.strip_prefix(old)?))) {
        Some(name) => whole(name),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_unet() {
        for (old, new) in [
            ("input_blocks.0.0.weight", "conv_in.weight"),
            ("input_blocks.4.0.skip_connection.bias", "down_blocks.1.resnets.0.conv_shortcut.bias"),
            ("input_blocks.3.0.op.weight", "down_blocks.0.downsamplers.0.conv.weight"),
            (
                "input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight",
                "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight",
            ),
            ("middle_block.2.out_layers.3.weight", "mid_block.resnets.1.conv2.weight"),
            ("output_blocks.2.1.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"),
            ("output_blocks.5.2.conv.bias", "up_blocks.1.upsamplers.0.conv.bias"),
            ("output_blocks.11.1.proj_out.weight", "up_blocks.3.attentions.2.proj_out.weight"),
            ("label_emb.0.2.bias", "add_embedding.linear_2.bias"),
            ("out.2.weight", "conv_out.weight"),
        ] {
            assert_eq!(unet(old, 2).as_deref(), Some(new), "{old}");
        }
        for strange in
            ["", "input_blocks", "input_blocks.x.0.w", "out.1.w", "middle_block.9.w", "nothing.0.w"]
        {
            assert_eq!(unet(strange, 2), None, "{strange}");
        }
    }

    #[test]
    fn names_of_the_vae() {
        for (old, new) in [
            ("decoder.up.3.block.0.conv1.weight", "decoder.up_blocks.0.resnets.0.conv1.weight"),
            ("decoder.up.1.upsample.conv.bias", "decoder.up_blocks.2.upsamplers.0.conv.bias"),
            (
                "encoder.down.1.block.0.nin_shortcut.weight",
                "encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
            ),
            ("encoder.mid.attn_1.proj_out.bias", "encoder.mid_block.attentions.0.to_out.0.bias"),
            ("decoder.norm_out.weight", "decoder.conv_norm_out.weight"),
            ("post_quant_conv.bias", "post_quant_conv.bias"),
        ] {
            assert_eq!(vae_name(old, 4).map(|(name, _)| name).as_deref(), Some(new), "{old}");
        }
        assert_eq!(vae_name("decoder.up.4.block.0.conv1.weight", 4), None);
        assert_eq!(vae_name("loss.logvar", 4), None);
    }
}
