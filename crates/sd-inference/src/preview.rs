//! Pictures of a generation on its way: how latents become colours, and what of it is left to another thread.

mod background;

use std::sync::Arc;

use candle_core::{DType, Tensor};
use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};
use sd_models::nn::Seamless;
use sd_models::taesd::{AutoencoderTiny, Pause};
use sd_models::vae::VaeConfig;
use serde::Deserialize;

pub use background::Background;

use crate::repaint::Paste;
use crate::{Error, Result};

/// How a picture of a generation on its way is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreviewMethod {
    /// By a linear map from latents to colours: next to free, and coarse.
    LatentRgb,
    /// By the tiny autoencoder that was loaded beside the model ([`LoadOptions::preview_vae`](crate::LoadOptions::preview_vae))
    /// or stands in the place of its VAE: close to the result, in a fraction of its time. On the CPU that need not hold the
    /// steps up: [`Generation::pending_preview`](crate::Generation::pending_preview).
    Taesd,
    /// By the VAE: as good as the result. The next step waits as long as decoding a result takes, except where a tiny
    /// autoencoder is the VAE: then it is the same as `Taesd`.
    Vae,
}

/// What each latent channel adds to red, green and blue, in the scaled latents that samplers see, and what is added
/// to all; colours are -1 to 1.
///
/// It shows what goes where, in an eighth of the size, without the details that the VAE adds.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentRgb {
    /// For each of the four channels.
    pub factors: [[f32; 3]; 4],
    /// Added to red, green and blue.
    #[serde(default)]
    pub bias: [f32; 3],
}

/// Of the VAE of SD 1.x and 2.x; the figures that ComfyUI uses.
const SD: LatentRgb = LatentRgb {
    factors: [
        [0.3512, 0.2297, 0.3227],
        [0.3250, 0.4974, 0.2350],
        [-0.2829, 0.1762, 0.2721],
        [-0.2120, -0.2616, -0.7177],
    ],
    bias: [0.0; 3],
};

/// Of the VAE of SDXL; likewise.
const SDXL: LatentRgb = LatentRgb {
    factors: [
        [0.3920, 0.4054, 0.4549],
        [-0.2634, -0.0196, 0.0653],
        [0.0568, 0.1687, -0.0755],
        [-0.3112, -0.2359, -0.2076],
    ],
    bias: [0.0; 3],
};

impl LatentRgb {
    /// The map for a VAE that is known by its scaling factor.
    pub(crate) fn of(vae: &VaeConfig) -> Option<Self> {
        let is = |factor: f64| vae.latent_channels == 4 && (vae.scaling_factor - factor).abs() < 1e-4;
        match () {
            () if is(0.18215) => Some(SD),
            () if is(0.13025) => Some(SDXL),
            () => None,
        }
    }

    /// The first of the latents `(images, 4, height, width)` as a picture with a pixel for each.
    pub(crate) fn picture(&self, latents: &Tensor) -> Result<RgbImage> {
        let planes = latents.get(0)?.to_dtype(DType::F32)?.flatten_from(1)?.to_vec2::<f32>()?;
        let [_, _, rows, columns] = <[usize; 4]>::from(latents.dims4()?);
        let mut small = RgbImage::new(columns as u32, rows as u32);
        for (at, pixel) in small.pixels_mut().enumerate() {
            *pixel = Rgb([0, 1, 2].map(|colour| {
                let sum =
                    planes.iter().zip(&self.factors).map(|(plane, factors)| plane[at] * factors[colour]);
                let value = sum.sum::<f32>() + self.bias[colour];
                // Not a number becomes black: the run itself reports it.
                ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round() as u8
            }));
        }
        Ok(small)
    }
}

/// A picture of a generation on its way, as far as the next step has to wait for it. What is left to do may be done on
/// another thread: scaling, and decoding where a tiny autoencoder has to.
///
/// A [`Background`] does the latter without slowing the steps down.
pub struct PendingPreview {
    drawn: Drawn,
    /// Width and height to which it is brought.
    size: (u32, u32),
    /// The picture that it is a part of.
    paste: Option<Arc<Paste>>,
}

/// What a preview is made from.
pub(crate) enum Drawn {
    Picture(RgbImage),
    Later(Undecoded),
}

/// Latents `(1, channels, height, width)`, and the network that makes a picture of them. The network is shared.
pub(crate) struct Undecoded {
    tiny: Arc<AutoencoderTiny>,
    latents: Tensor,
    seamless: Seamless,
}

impl Undecoded {
    pub(crate) fn new(tiny: &Arc<AutoencoderTiny>, latents: Tensor, seamless: Seamless) -> Self {
        Self { tiny: Arc::clone(tiny), latents, seamless }
    }

    pub(crate) fn decode(&self, pause: Pause<'_>) -> Result<RgbImage> {
        to_image(&self.tiny.decode_in_pieces(&self.latents, self.seamless, pause)?)
    }
}

impl PendingPreview {
    pub(crate) fn new(drawn: Drawn, size: (u32, u32), paste: Option<Arc<Paste>>) -> Self {
        Self { drawn, size, paste }
    }

    /// Whether a network has still to decode it, which takes the time of a part of a step. Otherwise the picture is all but
    /// there.
    pub fn must_be_decoded(&self) -> bool {
        matches!(self.drawn, Drawn::Later(_))
    }

    /// The picture. What has to be decoded is decoded on rayon's current pool; it does not depend on the number of threads.
    ///
    /// # Errors
    /// As [`Generation::decode`](crate::Generation::decode), where it [must be decoded](Self::must_be_decoded).
    pub fn picture(self) -> Result<RgbImage> {
        self.make(&mut || Ok(()))
    }

    /// As [`picture`](Self::picture), but asks `go_on` again and again while it decodes, a few dozen times for a picture.
    /// `None` where that said no. It may wait, as [`Background::rest`] does.
    ///
    /// # Errors
    /// As [`picture`](Self::picture).
    pub fn picture_while(self, go_on: &mut dyn FnMut() -> bool) -> Result<Option<RgbImage>> {
        let made = self.make(&mut || if go_on() { Ok(()) } else { Err(sd_models::Error::Stopped) });
        match made {
            Err(Error::Model(sd_models::Error::Stopped)) => Ok(None),
            made => made.map(Some),
        }
    }

    fn make(self, pause: Pause<'_>) -> Result<RgbImage> {
        let Self { drawn, size: (width, height), paste } = self;
        let drawn = match drawn {
            Drawn::Picture(drawn) => drawn,
            Drawn::Later(undecoded) => undecoded.decode(pause)?,
        };
        let drawn = match drawn.dimensions() == (width, height) {
            true => drawn,
            false => resize(&drawn, width, height, FilterType::Triangle),
        };
        Ok(match paste {
            Some(paste) => paste.onto(&drawn),
            None => drawn,
        })
    }
}

/// Pixels `(1, 3, height, width)` in -1..=1 as bytes, rounded as the reference's image processor does.
pub(crate) fn to_image(pixels: &Tensor) -> Result<RgbImage> {
    let (_, _, height, width) = pixels.dims4()?;
    let pixels =
        pixels.squeeze(0)?.permute((1, 2, 0))?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    if pixels.iter().any(|value| !value.is_finite()) {
        return Err(Error::NotFinite { stage: "the VAE".into() });
    }
    let bytes = pixels
        .into_iter()
        .map(|value| ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8)
        .collect();
    RgbImage::from_raw(width as u32, height as u32, bytes)
        .ok_or_else(|| Error::NotFinite { stage: "the picture's size".into() })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn maps_are_known_by_the_latents() {
        let of = |latent_channels, scaling_factor| {
            LatentRgb::of(&VaeConfig { latent_channels, scaling_factor, ..VaeConfig::default() })
        };
        assert_eq!((of(4, 0.18215), of(4, 0.13025)), (Some(SD), Some(SDXL)));
        assert_eq!((of(4, 0.5), of(16, 0.18215)), (None, None));
    }

    #[test]
    fn each_channel_adds_its_colours() {
        let map = LatentRgb {
            factors: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [-1.0; 3]],
            bias: [0.0, 0.0, -1.0],
        };
        let at = |values: [f32; 4]| {
            let latents = Tensor::new(&values, &Device::Cpu).unwrap().reshape((1, 4, 1, 1)).unwrap();
            let drawn = Drawn::Picture(map.picture(&latents).unwrap());
            PendingPreview::new(drawn, (2, 3), None).picture().unwrap()
        };
        let picture = at([1.0, 0.0, 0.0, 0.0]);
        assert_eq!(picture.dimensions(), (2, 3));
        assert!(picture.pixels().all(|pixel| pixel.0 == [255, 128, 0]));
        assert_eq!(at([0.0, 0.0, 2.0, 1.0]).get_pixel(0, 0).0, [0, 0, 128]);
        assert_eq!(at([f32::NAN, 0.0, 0.0, 0.0]).get_pixel(1, 1).0, [0; 3]);
    }
}
