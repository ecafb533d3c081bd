//! What the tensors of the same network are called in different files.

use crate::Weights;

/// A naming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// Real-ESRGAN and BasicSR: `body.0.rdb1.conv1`.
    Basic,
    /// The second form of ESRGAN: `RRDB_trunk.0.RDB1.conv1`.
    Trunk,
    /// The first form: `model.1.sub.0.RDB1.conv1.0`, the numbers of a row of layers.
    Numbered,
}

/// The convolutions around the blocks.
pub(super) struct Names {
    pub(super) first: String,
    pub(super) body: String,
    pub(super) upsampling: Vec<String>,
    pub(super) hr: String,
    pub(super) last: String,
}

impl Naming {
    /// The one that these tensors follow.
    pub(super) fn of(weights: &Weights) -> Option<Self> {
        match () {
            () if weights.contains("model.0.weight") => Some(Self::Numbered),
            () if weights.contains("RRDB_trunk.0.RDB1.conv1.weight") => Some(Self::Trunk),
            () if weights.contains("conv_first.weight") => Some(Self::Basic),
            () => None,
        }
    }

    /// A tensor of convolution `conv` (1 to 5) in part `part` (1 to 3) of a block.
    pub(super) fn dense(self, block: usize, part: usize, conv: usize, tensor: &str) -> String {
        match self {
            Self::Basic => format!("body.{block}.rdb{part}.conv{conv}.{tensor}"),
            Self::Trunk => format!("RRDB_trunk.{block}.RDB{part}.conv{conv}.{tensor}"),
            Self::Numbered => format!("model.1.sub.{block}.RDB{part}.conv{conv}.0.{tensor}"),
        }
    }

    /// The convolutions around the blocks; as many doublings as there are.
    pub(super) fn names(self, weights: &Weights) -> Names {
        let present = |name: &String| weights.contains(&format!("{name}.weight"));
        let named = |first: &str, body: &str, up: &str, hr: &str, last: &str| Names {
            first: first.into(),
            body: body.into(),
            upsampling: (1..=4).map(|step| format!("{up}{step}")).take_while(present).collect(),
            hr: hr.into(),
            last: last.into(),
        };
        match self {
            Self::Basic => named("conv_first", "conv_body", "conv_up", "conv_hr", "conv_last"),
            Self::Trunk => named("conv_first", "trunk_conv", "upconv", "HRconv", "conv_last"),
            Self::Numbered => {
                // Layer 0, the blocks, then upsampling, convolution and activation for each doubling, then two
                // convolutions with an activation between them.
                let blocks =
                    (0..).take_while(|block| present(&format!("model.1.sub.{block}.RDB1.conv1.0"))).count();
                let layers =
                    (2..16).filter(|layer| present(&format!("model.{layer}"))).collect::<Vec<usize>>();
                let (up, ends) = layers.split_at(layers.len().saturating_sub(2));
                let layer = |number: Option<&usize>| format!("model.{}", number.copied().unwrap_or(2));
                Names {
                    first: "model.0".into(),
                    body: format!("model.1.sub.{blocks}"),
                    upsampling: up.iter().map(|number| layer(Some(number))).collect(),
                    hr: layer(ends.first()),
                    last: layer(ends.last()),
                }
            }
        }
    }
}
