//! The names that the first implementation of latent diffusion gave to the layers of the UNet.
//!
//! It counts blocks through all levels (`input_blocks.4`) where diffusers counts in each (`down_blocks.1.resnets.0`).

use super::UnetConfig;

/// The first name of the layer that diffusers calls `name`, such as `middle_block.1.proj_in`; `None` for a name that
/// is none of a UNet's.
pub(crate) fn ldm_name(config: &UnetConfig, name: &str) -> Option<String> {
    let levels = config.block_out_channels.len();
    let layers = |level: usize| config.level(level).layers;
    let (block, rest) = name.split_once('.').unwrap_or((name, ""));
    match block {
        "conv_in" => return Some("input_blocks.0.0".into()),
        "conv_out" => return Some("out.2".into()),
        "time_embedding" => {
            return Some(format!("time_embed.{}", if rest == "linear_1" { 0 } else { 2 }));
        }
        "add_embedding" => {
            return Some(format!("label_emb.0.{}", if rest == "linear_1" { 0 } else { 2 }));
        }
        _ => {}
    }
    if block == "mid_block" {
        let (kind, rest) = rest.split_once('.')?;
        let (index, layer) = rest.split_once('.')?;
        return match (kind, index) {
            ("attentions", _) => Some(format!("middle_block.1.{layer}")),
            (_, "0") => Some(format!("middle_block.0.{}", resnet(layer)?)),
            _ => Some(format!("middle_block.2.{}", resnet(layer)?)),
        };
    }
    let mut parts = rest.splitn(4, '.');
    let level: usize = parts.next()?.parse().ok().filter(|level| *level < levels)?;
    let (kind, index) = (parts.next()?, parts.next()?.parse::<usize>().ok()?);
    let layer = parts.next()?;
    match block {
        "down_blocks" => {
            // Before each level: its predecessors' layers and their downsamplers, and the first convolution.
            let first: usize = 1 + (0..level).map(|level| layers(level) + 1).sum::<usize>();
            Some(match kind {
                "resnets" => format!("input_blocks.{}.0.{}", first + index, resnet(layer)?),
                "attentions" => format!("input_blocks.{}.1.{layer}", first + index),
                _ => format!("input_blocks.{}.0.op", first + layers(level)),
            })
        }
        "up_blocks" => {
            let layers = |up: usize| layers(levels - 1 - up) + 1;
            let first: usize = (0..level).map(layers).sum();
            Some(match kind {
                "resnets" => format!("output_blocks.{}.0.{}", first + index, resnet(layer)?),
                "attentions" => format!("output_blocks.{}.1.{layer}", first + index),
                _ => {
                    let attends = config.up_block_types.get(level)?.starts_with("CrossAttn");
                    let place = if attends { 2 } else { 1 };
                    format!("output_blocks.{}.{place}.conv", first + layers(level) - 1)
                }
            })
        }
        _ => None,
    }
}

fn resnet(layer: &str) -> Option<&'static str> {
    Some(match layer {
        "conv1" => "in_layers.2",
        "time_emb_proj" => "emb_layers.1",
        "conv2" => "out_layers.3",
        "conv_shortcut" => "skip_connection",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that stand in published checkpoints of SD 1.5 (levels with two layers each; attention in the first three).
    #[test]
    fn names_are_those_of_published_checkpoints() {
        let config = UnetConfig::default();
        for (diffusers, first) in [
            ("conv_in", "input_blocks.0.0"),
            ("down_blocks.0.attentions.1.proj_in", "input_blocks.2.1.proj_in"),
            ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
            ("down_blocks.1.resnets.0.conv_shortcut", "input_blocks.4.0.skip_connection"),
            ("down_blocks.3.resnets.1.conv2", "input_blocks.11.0.out_layers.3"),
            ("mid_block.attentions.0.proj_out", "middle_block.1.proj_out"),
            ("mid_block.resnets.1.time_emb_proj", "middle_block.2.emb_layers.1"),
            ("up_blocks.0.upsamplers.0.conv", "output_blocks.2.1.conv"),
            ("up_blocks.1.upsamplers.0.conv", "output_blocks.5.2.conv"),
            (
                "up_blocks.3.attentions.2.transformer_blocks.0.attn1.to_q",
                "output_blocks.11.1.transformer_blocks.0.attn1.to_q",
            ),
            ("time_embedding.linear_2", "time_embed.2"),
            ("conv_out", "out.2"),
        ] {
            assert_eq!(ldm_name(&config, diffusers).as_deref(), Some(first), "{diffusers}");
        }
        for other in
            ["", "text", "down_blocks.9.resnets.0.conv1", "down_blocks.0", "up_blocks.x.resnets.0.conv1"]
        {
            assert_eq!(ldm_name(&config, other), None, "{other}");
        }
    }
}
