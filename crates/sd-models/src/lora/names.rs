//! The names that trainers give to the tensors of adapters.
//!
//! | naming | a key |
//! |---|---|
//! | kohya | `lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight`, `....alpha` |
//! | diffusers, old | `unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight` |
//! | diffusers | `unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora.down.weight` |
//! | PEFT | `unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight` |

/// What a tensor of the file is to its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// From the layer's input to the rank.
    Down,
    /// From the rank to the layer's output.
    Up,
    /// The kernel between the two, in the Tucker form of a convolution.
    Mid,
    /// The number that is divided by the rank.
    Alpha,
}

const SUFFIXES: [(&str, Role); 11] = [
    (".lora_down", Role::Down),
    (".lora_up", Role::Up),
    (".lora_mid", Role::Mid),
    (".lora_A", Role::Down),
    (".lora_B", Role::Up),
    (".lora.down", Role::Down),
    (".lora.up", Role::Up),
    (".lora_linear_layer.down", Role::Down),
    (".lora_linear_layer.up", Role::Up),
    (OLD_DOWN, Role::Down),
    (OLD_UP, Role::Up),
];
/// Here the layer's own name is changed too: `to_q_lora` stands beside `to_q`.
const OLD_DOWN: &str = "_lora.down";
const OLD_UP: &str = "_lora.up";

/// The layer that a key is about, with dots between its parts or, from kohya, underscores; and what it holds.
pub(super) fn parse(key: &str) -> Option<(String, Role)> {
    let key = key.strip_prefix("base_model.model.").unwrap_or(key);
    if let Some(layer) = key.strip_suffix(".alpha") {
        return Some((plain(layer), Role::Alpha));
    }
    let stem = key.strip_suffix(".weight")?;
    for (suffix, role) in SUFFIXES {
        if let Some(layer) = stem.strip_suffix(suffix) {
            let old = [OLD_DOWN, OLD_UP].contains(&suffix);
            return Some((if old { renamed(&plain(layer)) } else { plain(layer) }, role));
        }
    }
    // A state dict of PEFT's own names the adapter: `to_q.lora_A.default.weight`.
    [(".lora_A.", Role::Down), (".lora_B.", Role::Up)].into_iter().find_map(|(infix, role)| {
        let (layer, adapter) = stem.rsplit_once(infix)?;
        (!adapter.contains('.')).then(|| (plain(layer), role))
    })
}

fn plain(layer: &str) -> String {
    layer.replace(".processor.", ".")
}

/// The layer that an old name of diffusers means.
fn renamed(layer: &str) -> String {
    if layer.contains(".self_attn.") {
        for (old, own) in [("to_q", "q_proj"), ("to_k", "k_proj"), ("to_v", "v_proj"), ("to_out", "out_proj")]
        {
            if let Some(attention) = layer.strip_suffix(old) {
                return format!("{attention}{own}");
            }
        }
    }
    match layer.ends_with(".to_out") {
        true => format!("{layer}.0"),
        false => layer.to_owned(),
    }
}

/// What a file is that has this key, if it is something else than LoRA or LoCon.
pub(super) fn other_form(key: &str) -> Option<&'static str> {
    let forms = [
        (".hada_", "LoHa"),
        (".lokr_", "LoKr"),
        (".dora_scale", "DoRA"),
        ("lora_magnitude_vector", "DoRA"),
        (".oft_", "OFT"),
        (".boft_", "BOFT"),
        (".on_input", "(IA)^3"),
        (".diff", "a full difference of weights"),
        (".w_norm", "trained norms"),
        (".b_norm", "trained norms"),
        (".lora_embedding_", "an adapter of embedding tables"),
        ("lora_B.bias", "LoRA with biases"),
        ("lora_up.bias", "LoRA with biases"),
        (".a1.weight", "GLoRA"),
        (".b1.weight", "GLoRA"),
        ("bundle_emb", "a bundle with textual inversions"),
        ("emb_params", "a textual inversion"),
        ("string_to_param", "a textual inversion"),
    ];
    forms.into_iter().find_map(|(part, form)| key.contains(part).then_some(form))
}

/// Kohya's way of writing a module's name.
pub(super) fn flat(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_naming_leads_to_the_layer() {
        let attention = "down_blocks.0.attentions.0.transformer_blocks.0.attn1";
        for (key, layer, role) in [
            (
                "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight",
                "lora_unet_mid_block_attentions_0_proj_in",
                Role::Down,
            ),
            (
                "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha",
                "lora_te1_text_model_encoder_layers_0_mlp_fc1",
                Role::Alpha,
            ),
            (
                &format!("unet.{attention}.processor.to_q_lora.down.weight"),
                &format!("unet.{attention}.to_q"),
                Role::Down,
            ),
            (
                &format!("{attention}.processor.to_out_lora.up.weight"),
                &format!("{attention}.to_out.0"),
                Role::Up,
            ),
            (
                &format!("unet.{attention}.to_out.0.lora.up.weight"),
                &format!("unet.{attention}.to_out.0"),
                Role::Up,
            ),
            (
                &format!("base_model.model.{attention}.to_k.lora_A.weight"),
                &format!("{attention}.to_k"),
                Role::Down,
            ),
            (
                &format!("unet.{attention}.to_k.lora_B.default.weight"),
                &format!("unet.{attention}.to_k"),
                Role::Up,
            ),
            (
                "text_encoder.text_model.encoder.layers.1.self_attn.to_out_lora.up.weight",
                "text_encoder.text_model.encoder.layers.1.self_attn.out_proj",
                Role::Up,
            ),
            (
                "text_encoder.text_model.encoder.layers.1.mlp.fc2.lora_linear_layer.down.weight",
                "text_encoder.text_model.encoder.layers.1.mlp.fc2",
                Role::Down,
            ),
            (
                "lora_unet_down_blocks_0_resnets_0_conv1.lora_mid.weight",
                "lora_unet_down_blocks_0_resnets_0_conv1",
                Role::Mid,
            ),
        ] {
            assert_eq!(parse(key), Some((layer.to_owned(), role)), "{key}");
        }
        for key in ["", "x", "unet.conv_in.weight", "unet.to_q.lora_A.bias", "unet.to_q.lora_C.weight"] {
            assert_eq!(parse(key), None, "{key}");
        }
    }
}
