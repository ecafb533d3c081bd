//! Upscaling by a network of residual-in-residual dense blocks: ESRGAN (Wang and others, 2018) and Real-ESRGAN (Wang and
//! others, 2021), which most upscalers that people share are.
//!
//! Sizes, number of blocks and scale follow from the names and shapes of the tensors.

mod blocks;
mod memory;
mod naming;
mod tiling;

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use crate::nn::{Conv2d, ConvConfig, ConvInputs, FeatureMap, pixel_unshuffle};
use crate::{Error, Result, Weights};
use blocks::{Rrdb, SLOPE};
use naming::{Names, Naming};
pub use tiling::{TiledUpscale, UpscaleTiles};

/// More blocks than any published network has.
const MAX_BLOCKS: usize = 64;
/// Colours.
const CHANNELS: usize = 3;

/// An upscaling network. Pictures are `(batch, 3, height, width)` in 0..=1.
#[derive(Debug)]
pub struct RrdbNet {
    conv_first: Conv2d,
    blocks: Vec<Rrdb>,
    conv_body: Conv2d,
    upsampling: Vec<Conv2d>,
    conv_hr: Conv2d,
    conv_last: Conv2d,
    /// The side of the squares of pixels that become channels first.
    unshuffle: usize,
    /// Channels of the states between blocks, and those that each convolution of a dense part adds.
    features: usize,
    growth: usize,
    dtype: DType,
}

/// What may stand before all names: how training programs wrap the network (`params_ema` are averaged weights).
const WRAPPERS: [&str; 3] = ["params_ema", "params", "module"];

/// The network's own weights in a file of them.
fn unwrapped(weights: &Weights) -> Weights {
    let wraps = |inner: &Weights| Naming::of(inner).is_some();
    WRAPPERS.iter().map(|name| weights.child(name)).find(wraps).unwrap_or_else(|| weights.clone())
}

impl RrdbNet {
    /// Opens a safetensors file with the names of Real-ESRGAN, or of either form of ESRGAN.
    ///
    /// # Errors
    /// When the file cannot be read or is no such network; as [`Weights::tensor`].
    pub fn open(path: &Path, device: &Device, dtype: DType) -> Result<Self> {
        check_no_pickle(path)?;
        Self::load(&unwrapped(&Weights::open_file(path, device, dtype)?), &path.display().to_string())
    }

    /// By how much the network in a file enlarges, and the multiple that sizes need, from the file's header alone.
    ///
    /// # Errors
    /// As [`RrdbNet::open`], as far as that shows without the weights.
    pub fn scale_in(path: &Path, device: &Device) -> Result<(usize, usize)> {
        check_no_pickle(path)?;
        let file = path.display().to_string();
        let outline = Outline::of(&unwrapped(&Weights::open_file(path, device, DType::F32)?), &file)?;
        Ok(((1 << outline.names.upsampling.len()) / outline.unshuffle, outline.unshuffle))
    }

    /// Loads the network. `file` names the tensors' file in error messages.
    ///
    /// # Errors
    /// As [`RrdbNet::open`].
    pub fn load(weights: &Weights, file: &str) -> Result<Self> {
        let bad = |reason: String| Error::BadFile { file: file.into(), reason };
        let Outline { naming, names, features, unshuffle } = Outline::of(weights, file)?;
        let shape = |name: &str| shape(weights, name, file);
        let conv = |name: &str| {
            let [outputs, inputs] = shape(name)?;
            Conv2d::load(&weights.child(name), inputs, outputs, ConvConfig::SAME_3X3)
        };

        let [colours, _] = shape(&names.last)?;
        if colours != CHANNELS {
            return Err(bad(format!("it gives {colours} channels; 3 are needed")));
        }
        let mut blocks = Vec::new();
        while blocks.len() < MAX_BLOCKS && weights.contains(&naming.dense(blocks.len(), 1, 1, "weight")) {
            blocks.push(Rrdb::load(weights, naming, blocks.len(), features)?);
        }
        if blocks.is_empty() {
            return Err(bad(format!("`{}` is missing: it has no block", naming.dense(0, 1, 1, "weight"))));
        }
        let [growth, _] = shape(naming.dense(0, 1, 1, "weight").trim_end_matches(".weight"))?;
        Ok(Self {
            conv_first: conv(&names.first)?,
            blocks,
            conv_body: conv(&names.body)?,
            upsampling: names.upsampling.iter().map(|name| conv(name)).collect::<Result<_>>()?,
            conv_hr: conv(&names.hr)?,
            conv_last: conv(&names.last)?,
            unshuffle,
            features,
            growth,
            dtype: weights.activation_dtype(),
        })
    }

    /// By how much it enlarges: 1, 2, 4, ...
    pub fn scale(&self) -> usize {
        (1 << self.upsampling.len()) / self.unshuffle
    }

    /// Height and width of pictures must be multiples of this.
    pub fn size_multiple(&self) -> usize {
        self.unshuffle
    }

    /// How far, in pixels of the input, a pixel of the result can see.
    pub fn reach(&self) -> usize {
        // Three dense parts of five convolutions in each block; first, body, and what follows the upsampling.
        let convolutions = 2 + self.blocks.len() * 15 + self.upsampling.len() + 2;
        convolutions * self.unshuffle
    }

    /// The picture `scale()` times as large, around 0..=1, f32.
    ///
    /// # Errors
    /// When height or width are no multiples of [`size_multiple`](Self::size_multiple), or on device errors.
    pub fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let pixels = pixels.to_dtype(self.dtype)?;
        let input = match self.unshuffle {
            1 => pixels,
            factor => pixel_unshuffle(&pixels, factor)?,
        };
        let first = self.conv_first.forward(&FeatureMap::from_nchw(&input)?)?;
        let body = self.blocks.iter().try_fold(first.clone(), |state, block| block.forward(state))?;
        let residual = ConvInputs { residual: Some(&first), ..ConvInputs::default() };
        let mut state = self.conv_body.forward_with(&body, residual)?;
        for conv in &self.upsampling {
            let (_, _, height, width) = state.dims();
            let doubled = ConvInputs { upsample_to: Some((2 * height, 2 * width)), ..ConvInputs::default() };
            state = conv.forward_with(&state, doubled)?.leaky_relu(SLOPE)?;
        }
        let state = self.conv_hr.forward(&state)?.leaky_relu(SLOPE)?;
        Ok(self.conv_last.forward(&state)?.to_nchw()?.to_dtype(DType::F32)?)
    }
}

/// What the names and shapes of the tensors tell at once.
struct Outline {
    naming: Naming,
    names: Names,
    /// Channels of the states between blocks.
    features: usize,
    /// The side of the squares of pixels that become channels first.
    unshuffle: usize,
}

impl Outline {
    fn of(weights: &Weights, file: &str) -> Result<Self> {
        let bad = |reason: String| Error::BadFile { file: file.into(), reason };
        let Some(naming) = Naming::of(weights) else {
            return Err(bad(
                "no ESRGAN network: neither `conv_first.weight` nor `model.0.weight` is there".into()
            ));
        };
        let names = naming.names(weights);
        let [features, inputs] = shape(weights, &names.first, file)?;
        let unshuffle = match inputs {
            CHANNELS => 1,
            inputs if inputs == CHANNELS * 4 => 2,
            inputs if inputs == CHANNELS * 16 => 4,
            _ => return Err(bad(format!("it takes {inputs} channels; 3, 12 and 48 are known"))),
        };
        let steps = names.upsampling.len();
        if (1 << steps) < unshuffle || (1 << steps) % unshuffle != 0 {
            return Err(bad(format!(
                "its {steps} doublings do not make up for squares of {unshuffle} pixels"
            )));
        }
        Ok(Self { naming, names, features, unshuffle })
    }
}

/// Outputs and inputs of a convolution.
fn shape(weights: &Weights, name: &str, file: &str) -> Result<[usize; 2]> {
    match weights.shape(&format!("{name}.weight")) {
        Some([outputs, inputs, 3, 3]) => Ok([*outputs, *inputs]),
        found => {
            let reason = format!("`{name}.weight` should be a 3x3 convolution and has the shape {found:?}");
            Err(Error::BadFile { file: file.into(), reason })
        }
    }
}

fn check_no_pickle(path: &Path) -> Result<()> {
    match path.extension().is_some_and(|ending| ["pth", "pt", "ckpt"].iter().any(|known| ending == *known)) {
        true => {
            let reason = "it is a pickle, which can run code; convert it to safetensors first".into();
            Err(Error::BadFile { file: path.display().to_string(), reason })
        }
        false => Ok(()),
    }
}
