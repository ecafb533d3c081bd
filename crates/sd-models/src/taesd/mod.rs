//! TAESD, the tiny autoencoder (Ollin Boer Bohan, 2023): previews in a fraction of a step, and a decoder for the hurried;
//! reference `diffusers.AutoencoderTiny`.
//!
//! It works on latents as the diffusion knows them, which other decoders unscale first. What it is made of follows from
//! the names and shapes of its tensors, so that a file needs no configuration beside it.

mod layers;
mod random;

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use crate::nn::{FeatureMap, Seamless};
use crate::{Error, ModelFiles, Result, Weights, json};
use layers::{Layers, Way};

/// Where each naming keeps the decoder, and the number of its first layer. The original decoder begins with a layer that
/// diffusers has outside.
const DECODERS: [(&str, usize); 4] = [("decoder.layers", 0), ("decoder", 1), ("taesd_decoder", 1), ("", 1)];

/// The same of the encoder.
const ENCODERS: [(&str, usize); 3] = [("encoder.layers", 0), ("encoder", 0), ("taesd_encoder", 0)];

/// Latents beyond this are bent back: the decoder never saw others.
const LARGEST_LATENT: f64 = 3.0;

/// What is called between two pieces of work: it may wait, and its error ends the work.
pub type Pause<'a> = &'a mut dyn FnMut() -> Result<()>;

/// A tiny autoencoder: always a decoder, and an encoder where the file has one.
#[derive(Debug)]
pub struct AutoencoderTiny {
    encoder: Option<Layers>,
    decoder: Layers,
    dtype: DType,
}

/// What of a folder's `config.json` could ask for something else than TAESD.
#[derive(Deserialize)]
#[serde(default)]
struct TinyConfig {
    act_fn: String,
    upsample_fn: String,
    upsampling_scaling_factor: usize,
    scaling_factor: f64,
    shift_factor: f64,
}

impl Default for TinyConfig {
    fn default() -> Self {
        Self {
            act_fn: "relu".into(),
            upsample_fn: "nearest".into(),
            upsampling_scaling_factor: 2,
            scaling_factor: 1.0,
            shift_factor: 0.0,
        }
    }
}

impl TinyConfig {
    fn check(&self, file: &str) -> Result<()> {
        let Self { act_fn, upsample_fn, upsampling_scaling_factor, scaling_factor, shift_factor } = self;
        for (field, found, supported) in [
            ("act_fn", act_fn.clone(), "relu"),
            ("upsample_fn", upsample_fn.clone(), "nearest"),
            ("upsampling_scaling_factor", upsampling_scaling_factor.to_string(), "2"),
            ("scaling_factor", scaling_factor.to_string(), "1"),
            ("shift_factor", shift_factor.to_string(), "0"),
        ] {
            if found != supported {
                let (file, field, supported) = (file.into(), field.into(), supported.into());
                return Err(Error::UnsupportedConfig { file, field, found, supported });
            }
        }
        Ok(())
    }
}

impl AutoencoderTiny {
    /// Opens a folder in the diffusers layout (`config.json` and weights) or a single safetensors file, with diffusers'
    /// names or those of the original repository, with or without an encoder.
    ///
    /// # Errors
    /// When nothing is there or the tensors are not those of a tiny autoencoder; as [`Weights::tensor`].
    pub fn open(path: &Path, device: &Device, dtype: DType) -> Result<Self> {
        Self::load(&Self::weights(path, device, dtype)?, &path.display().to_string())
    }

    /// The tensors of a folder or file.
    fn weights(path: &Path, device: &Device, dtype: DType) -> Result<Weights> {
        if !path.is_dir() {
            return Weights::open_file(path, device, dtype);
        }
        let files = ModelFiles::Folder(path.to_owned());
        if files.contains("config.json") {
            files.json::<TinyConfig>("config.json")?.check(&files.describe("config.json"))?;
        }
        Weights::open(&files, ".", "diffusion_pytorch_model", device, dtype)
    }

    /// Loads the model from tensors of any of the known namings. `file` names them in error messages.
    ///
    /// # Errors
    /// As [`AutoencoderTiny::open`].
    pub fn load(weights: &Weights, file: &str) -> Result<Self> {
        let part = |places: &[(&str, usize)], way: Way| {
            let place = places
                .iter()
                .find(|(scope, first)| weights.contains(&name(scope, &format!("{first}.weight"))));
            place.map(|(scope, first)| {
                let scope = if scope.is_empty() { weights.clone() } else { weights.child(scope) };
                Layers::load(&scope, *first, way, file)
            })
        };
        let Some(decoder) = part(&DECODERS, Way::Decode) else {
            return Err(Error::BadFile {
                file: file.into(),
                reason: "no decoder of a tiny autoencoder: neither `decoder.layers.0.weight` nor, in the original \
                         naming, `1.weight`"
                    .into(),
            });
        };
        let encoder = part(&ENCODERS, Way::Encode).transpose()?;
        Ok(Self { encoder, decoder: decoder?, dtype: weights.activation_dtype() })
    }

    /// Whether these tensors are those of a tiny autoencoder, by their names.
    pub fn is_in(weights: &Weights) -> bool {
        names_decoder(|name| weights.shape(name).is_some())
    }

    /// Whether an encoder is among these tensors of a tiny autoencoder, by their names.
    pub fn has_encoder_in(weights: &Weights) -> bool {
        ENCODERS
            .iter()
            .any(|(scope, first)| weights.shape(&name(scope, &format!("{first}.weight"))).is_some())
    }

    /// Channels of the latents.
    pub fn latent_channels(&self) -> usize {
        self.decoder.in_channels()
    }

    /// Pixels to one latent along each side.
    pub fn scale_factor(&self) -> usize {
        self.decoder.scale_factor()
    }

    /// Whether it can encode.
    pub fn has_encoder(&self) -> bool {
        self.encoder.is_some()
    }

    /// The picture `(batch, 3, height, width)` of latents as the diffusion knows them, around -1..=1, f32.
    ///
    /// # Errors
    /// When shapes do not fit, or on device errors.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        self.decode_with(latents, Seamless::default())
    }

    /// As [`decode`](Self::decode), for a picture whose edges meet.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_with(&self, latents: &Tensor, seamless: Seamless) -> Result<Tensor> {
        self.decode_in_pieces(latents, seamless, &mut || Ok(()))
    }

    /// As [`decode_with`](Self::decode_with), but `pause` is called before each convolution, and may wait there: for
    /// pictures that are decoded beside other work. Thirty-five times in the published networks.
    ///
    /// # Errors
    /// As [`decode`](Self::decode), and the first error of `pause`, which ends the work ([`Error::Stopped`]).
    pub fn decode_in_pieces(&self, latents: &Tensor, seamless: Seamless, pause: Pause<'_>) -> Result<Tensor> {
        let latents = ((latents.to_dtype(self.dtype)? / LARGEST_LATENT)?.tanh()? * LARGEST_LATENT)?;
        let latents = FeatureMap::from_nchw(&latents)?.with_seamless(seamless);
        let pixels = self.decoder.forward(latents, pause)?.to_nchw()?;
        Ok(pixels.to_dtype(DType::F32)?.affine(2.0, -1.0)?)
    }

    /// The latents, as the diffusion knows them, of `pixels` `(batch, 3, height, width)` in -1..=1, f32.
    ///
    /// # Errors
    /// Without an encoder; when shapes do not fit, or on device errors.
    pub fn encode(&self, pixels: &Tensor) -> Result<Tensor> {
        self.encode_with(pixels, Seamless::default())
    }

    /// As [`encode`](Self::encode), for a picture whose edges meet.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_with(&self, pixels: &Tensor, seamless: Seamless) -> Result<Tensor> {
        let Some(encoder) = &self.encoder else {
            return Err(candle_core::Error::Msg("the tiny autoencoder has no encoder".into()).into());
        };
        let pixels = pixels.to_dtype(self.dtype)?.affine(0.5, 0.5)?;
        let pixels = FeatureMap::from_nchw(&pixels)?.with_seamless(seamless);
        Ok(encoder.forward(pixels, &mut || Ok(()))?.to_nchw()?.to_dtype(DType::F32)?)
    }
}

/// Whether one of these names is that of a decoder's first layer.
pub(crate) fn names_decoder(contains: impl Fn(&str) -> bool) -> bool {
    DECODERS.iter().any(|(scope, first)| contains(&name(scope, &format!("{first}.weight"))))
}

/// Whether these names are those of either half of a tiny autoencoder: its first layer, and the first block behind it. The
/// original files number the layers of one half from the top.
pub(crate) fn names_half(contains: impl Fn(&str) -> bool) -> bool {
    let both = |scope: &str, first: usize, block: usize| {
        contains(&name(scope, &format!("{first}.weight")))
            && contains(&name(scope, &format!("{block}.conv.0.weight")))
    };
    // A decoder has a ReLU in between.
    DECODERS.iter().any(|(scope, first)| both(scope, *first, first + 2))
        || ENCODERS.iter().chain(&[("", 0)]).any(|(scope, first)| both(scope, *first, first + 1))
}

/// Whether the `config.json` is that of a tiny autoencoder.
///
/// # Errors
/// When it asks for something else than TAESD.
pub(crate) fn is_config(text: &[u8], file: &str) -> Result<bool> {
    #[derive(Deserialize)]
    struct Class {
        #[serde(rename = "_class_name", default)]
        class_name: String,
    }
    let told = |source| Error::Json { file: file.into(), source };
    match json::from_slice::<Class>(text).map_err(told)?.class_name.as_str() {
        "AutoencoderTiny" => {
            json::from_slice::<TinyConfig>(text).map_err(told)?.check(file)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn name(scope: &str, rest: &str) -> String {
    if scope.is_empty() { rest.to_owned() } else { format!("{scope}.{rest}") }
}
