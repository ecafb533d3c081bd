//! A row of convolutions and residual blocks, read off the names of its tensors.

use super::Pause;
use crate::nn::{Conv2d, ConvConfig, ConvInputs, FeatureMap, Padding};
use crate::{Error, Result, Weights};

/// Longer rows are no tiny autoencoder: the published ones have about twenty layers.
const MAX_LAYERS: usize = 128;
/// 3x3 that halves height and width.
const HALVING: ConvConfig = ConvConfig { kernel: 3, stride: 2, padding: Padding::Symmetric(1) };

/// What convolutions without bias do: those with bias stand at both ends and keep the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// They halve.
    Encode,
    /// What comes before them is doubled.
    Decode,
}

/// The layers of one direction.
#[derive(Debug)]
pub(super) struct Layers {
    layers: Vec<Layer>,
    in_channels: usize,
    scale_factor: usize,
}

#[derive(Debug)]
pub(super) enum Layer {
    Conv(Conv2d),
    /// The first one of a decoder is followed by ReLU.
    ConvRelu(Conv2d),
    DoubledConv(Conv2d),
    Block([Conv2d; 3]),
}

impl Layers {
    /// The layers `first`, `first + 1`, ... of this scope; numbers without tensors are activations and upsamplings.
    pub(super) fn load(weights: &Weights, first: usize, way: Way, file: &str) -> Result<Self> {
        let bad = |reason: String| Error::BadFile { file: file.into(), reason };
        let shape = |name: String| weights.shape(&name).map(<[usize]>::to_vec);
        let conv = |name: String, unbiased: bool, config: ConvConfig| {
            let found = shape(format!("{name}.weight"));
            let Some([outputs, inputs, 3, 3]) = found.as_deref() else {
                return Err(bad(format!(
                    "`{name}.weight` is no 3x3 convolution of a tiny autoencoder: {found:?}"
                )));
            };
            let weights = weights.child(&name);
            match unbiased {
                true => Conv2d::load_unbiased(&weights, *inputs, *outputs, config),
                false => Conv2d::load(&weights, *inputs, *outputs, config),
            }
        };
        let same = ConvConfig::SAME_3X3;
        let (mut layers, mut halvings) = (Vec::new(), 0);
        for number in first..first + MAX_LAYERS {
            if weights.contains(&format!("{number}.conv.0.weight")) {
                let part = |part: usize| conv(format!("{number}.conv.{part}"), false, same);
                layers.push(Layer::Block([part(0)?, part(2)?, part(4)?]));
            } else if weights.contains(&format!("{number}.weight")) {
                let unbiased = !weights.contains(&format!("{number}.bias"));
                halvings += usize::from(unbiased);
                let config = if unbiased && way == Way::Encode { HALVING } else { same };
                let loaded = conv(number.to_string(), unbiased, config)?;
                layers.push(match way {
                    Way::Decode if number == first => Layer::ConvRelu(loaded),
                    Way::Decode if unbiased => Layer::DoubledConv(loaded),
                    _ => Layer::Conv(loaded),
                });
            }
        }
        let in_channels =
            shape(format!("{first}.weight")).and_then(|shape| shape.get(1).copied()).unwrap_or(0);
        if !matches!(layers.last(), Some(Layer::Conv(_))) || layers.len() < 2 {
            return Err(bad(
                "the tensors do not end with a convolution: the file is no tiny autoencoder".into()
            ));
        }
        Ok(Self::new(layers, in_channels, halvings))
    }

    /// `halvings`: how often height and width are halved or doubled.
    pub(super) fn new(layers: Vec<Layer>, in_channels: usize, halvings: usize) -> Self {
        Self { layers, in_channels, scale_factor: 1 << halvings }
    }

    pub(super) fn in_channels(&self) -> usize {
        self.in_channels
    }

    pub(super) fn scale_factor(&self) -> usize {
        self.scale_factor
    }

    /// `pause` is called before each convolution; its error ends the work.
    pub(super) fn forward(&self, input: FeatureMap, pause: Pause<'_>) -> Result<FeatureMap> {
        self.layers.iter().try_fold(input, |state, layer| {
            pause()?;
            layer.forward(&state, pause)
        })
    }
}

impl Layer {
    /// `pause` is called between its convolutions.
    fn forward(&self, input: &FeatureMap, pause: Pause<'_>) -> Result<FeatureMap> {
        match self {
            Self::Conv(conv) => conv.forward(input),
            Self::ConvRelu(conv) => conv.forward(input)?.leaky_relu(0.0),
            Self::DoubledConv(conv) => {
                let (_, _, height, width) = input.dims();
                let doubled =
                    ConvInputs { upsample_to: Some((2 * height, 2 * width)), ..ConvInputs::default() };
                conv.forward_with(input, doubled)
            }
            Self::Block([first, second, third]) => {
                let state = first.forward(input)?.leaky_relu(0.0)?;
                pause()?;
                let state = second.forward(&state)?.leaky_relu(0.0)?;
                pause()?;
                let residual = ConvInputs { residual: Some(input), ..ConvInputs::default() };
                third.forward_with(&state, residual)?.leaky_relu(0.0)
            }
        }
    }
}
