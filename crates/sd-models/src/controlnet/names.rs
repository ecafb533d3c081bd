//! The names of tensors in the layout of the first release (`control_model.input_blocks.1.0...`), in which single files
//! are often kept, as those of the diffusers layout.

use std::collections::HashMap;

/// What the tensors of a ControlNet are called where they lie in a whole checkpoint.
const PREFIX: &str = "control_model.";

/// Layers inside residual blocks.
const RESNET: [(&str, &str); 6] = [
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
];

/// Layers that are called the same whatever the configuration is.
const FIXED: [(&str, &str); 9] = [
    ("time_embed.0", "time_embedding.linear_1"),
    ("time_embed.2", "time_embedding.linear_2"),
    ("label_emb.0.0", "add_embedding.linear_1"),
    ("label_emb.0.2", "add_embedding.linear_2"),
    ("input_blocks.0.0", "conv_in"),
    ("input_hint_block.0", "controlnet_cond_embedding.conv_in"),
    ("middle_block_out.0", "controlnet_mid_block"),
    ("middle_block.0", "mid_block.resnets.0"),
    ("middle_block.2", "mid_block.resnets.1"),
];

/// A file in the layout of the first release: what its numbered blocks are.
#[derive(Debug)]
pub(super) struct OriginalNames {
    /// What stands before every name.
    prefix: &'static str,
    blocks: HashMap<usize, Block>,
    /// The number of the last convolution that embeds the picture; they are counted by twos, SiLUs lie between.
    last_hint: usize,
}

/// One of the numbered blocks of the way down.
#[derive(Debug, Clone, Copy)]
enum Block {
    Layer { level: usize, layer: usize },
    Downsample { level: usize },
}

impl OriginalNames {
    /// Looks whether a file with these tensors has this layout. `None`: it has another one.
    pub(super) fn recognise(contains: impl Fn(&str) -> bool) -> Option<Self> {
        let prefix = [PREFIX, ""].into_iter().find(|p| contains(&format!("{p}input_hint_block.0.weight")))?;
        let has = |name: String| contains(&format!("{prefix}{name}.weight"));
        let (mut blocks, mut level, mut layer) = (HashMap::new(), 0, 0);
        for number in 1.. {
            if has(format!("input_blocks.{number}.0.op")) {
                blocks.insert(number, Block::Downsample { level });
                (level, layer) = (level + 1, 0);
            } else if has(format!("input_blocks.{number}.0.in_layers.0")) {
                blocks.insert(number, Block::Layer { level, layer });
                layer += 1;
            } else {
                break;
            }
        }
        let last_hint =
            (1..).take_while(|n| has(format!("input_hint_block.{}", 2 * n))).last().unwrap_or(0) * 2;
        Some(Self { prefix, blocks, last_hint })
    }

    /// The name of a tensor in the diffusers layout; `None` for one that is no part of a ControlNet.
    pub(super) fn name(&self, original: &str) -> Option<String> {
        let original = original.strip_prefix(self.prefix)?;
        let rest_of = |layer: &str| original.strip_prefix(layer).and_then(|rest| rest.strip_prefix('.'));
        for (theirs, ours) in FIXED {
            if let Some(rest) = rest_of(theirs) {
                return Some(format!("{ours}.{}", inside_resnet(rest)));
            }
        }
        if let Some(rest) = rest_of("middle_block.1") {
            return Some(format!("mid_block.attentions.0.{rest}"));
        }
        let (kind, rest) = original.split_once('.')?;
        let (number, rest) = rest.split_once('.')?;
        let number: usize = number.parse().ok()?;
        match (kind, self.blocks.get(&number)) {
            ("zero_convs", _) => {
                Some(format!("controlnet_down_blocks.{number}.{}", rest.strip_prefix("0.")?))
            }
            ("input_hint_block", _) if number == self.last_hint => {
                Some(format!("controlnet_cond_embedding.conv_out.{rest}"))
            }
            ("input_hint_block", _) if number.is_multiple_of(2) => {
                Some(format!("controlnet_cond_embedding.blocks.{}.{rest}", (number / 2).checked_sub(1)?))
            }
            ("input_blocks", Some(Block::Downsample { level })) => {
                Some(format!("down_blocks.{level}.downsamplers.0.conv.{}", rest.strip_prefix("0.op.")?))
            }
            ("input_blocks", Some(Block::Layer { level, layer })) => Some(match rest.strip_prefix("0.") {
                Some(rest) => format!("down_blocks.{level}.resnets.{layer}.{}", inside_resnet(rest)),
                None => format!("down_blocks.{level}.attentions.{layer}.{}", rest.strip_prefix("1.")?),
            }),
            _ => None,
        }
    }
}

/// The diffusers name of a layer in a residual block; others keep theirs.
fn inside_resnet(name: &str) -> String {
    let known = RESNET.iter().find_map(|(theirs, ours)| Some((ours, name.strip_prefix(theirs)?)));
    known.map_or_else(|| name.to_owned(), |(ours, rest)| format!("{ours}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sd15(prefix: &'static str) -> OriginalNames {
        let hints: Vec<String> = (0..=7).map(|n| format!("input_hint_block.{}", 2 * n)).collect();
        OriginalNames::recognise(move |name| {
            let Some(name) = name.strip_prefix(prefix).and_then(|name| name.strip_suffix(".weight")) else {
                return false;
            };
            let number = |block: &str| block.parse::<usize>().ok().filter(|n| (1..12).contains(n));
            let mut parts = name.splitn(3, '.');
            match (parts.next(), parts.next().and_then(number), parts.next()) {
                (Some("input_blocks"), Some(n), Some("0.op")) => n % 3 == 0,
                (Some("input_blocks"), Some(n), Some("0.in_layers.0")) => n % 3 != 0,
                _ => hints.iter().any(|hint| hint == name),
            }
        })
        .unwrap()
    }

    #[test]
    fn the_blocks_of_sd15_are_where_diffusers_has_them() {
        for prefix in ["control_model.", ""] {
            let names = sd15(prefix);
            for (theirs, ours) in [
                ("time_embed.2.bias", "time_embedding.linear_2.bias"),
                ("label_emb.0.2.weight", "add_embedding.linear_2.weight"),
                ("input_blocks.0.0.weight", "conv_in.weight"),
                ("input_blocks.2.0.in_layers.2.weight", "down_blocks.0.resnets.1.conv1.weight"),
                ("input_blocks.4.0.skip_connection.bias", "down_blocks.1.resnets.0.conv_shortcut.bias"),
                ("input_blocks.6.0.op.weight", "down_blocks.1.downsamplers.0.conv.weight"),
                ("input_blocks.8.1.proj_in.weight", "down_blocks.2.attentions.1.proj_in.weight"),
                ("input_blocks.11.0.out_layers.3.bias", "down_blocks.3.resnets.1.conv2.bias"),
                (
                    "middle_block.1.transformer_blocks.0.attn2.to_k.weight",
                    "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
                ),
                ("middle_block.2.emb_layers.1.weight", "mid_block.resnets.1.time_emb_proj.weight"),
                ("middle_block_out.0.bias", "controlnet_mid_block.bias"),
                ("zero_convs.10.0.weight", "controlnet_down_blocks.10.weight"),
                ("input_hint_block.0.weight", "controlnet_cond_embedding.conv_in.weight"),
                ("input_hint_block.2.weight", "controlnet_cond_embedding.blocks.0.weight"),
                ("input_hint_block.12.bias", "controlnet_cond_embedding.blocks.5.bias"),
                ("input_hint_block.14.bias", "controlnet_cond_embedding.conv_out.bias"),
            ] {
                assert_eq!(names.name(&format!("{prefix}{theirs}")).as_deref(), Some(ours), "{theirs}");
            }
        }
    }

    #[test]
    fn what_is_no_part_of_it_is_left_out() {
        let names = sd15("control_model.");
        for other in [
            "model.diffusion_model.out.0.weight",
            "time_embed.0.weight",
            "control_model.input_blocks.40.0.op.weight",
            "",
        ] {
            assert_eq!(names.name(other), None, "{other}");
        }
        assert!(OriginalNames::recognise(|name| name == "controlnet_mid_block.weight").is_none());
    }
}
