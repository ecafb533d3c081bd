//! Pictures of a generation on its way: a linear map from latents to colours.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};
use sd_models::vae::VaeConfig;
use serde::Deserialize;

use crate::Result;
use crate::repaint::Paste;

/// How a picture of a generation on its way is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreviewMethod {
    /// By a linear map from latents to colours: next to free, and coarse.
    LatentRgb,
    /// By the tiny autoencoder that was loaded beside the model ([`LoadOptions::preview_vae`](crate::LoadOptions::preview_vae)):
    /// close to the result, in a fraction of its time.
    Taesd,
    /// By the VAE: as good as the result, and it takes as long as decoding one.
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

/// A picture of a generation on its way, as far as the model is needed for it. What is left to do is scaling, for which the
/// next step need not wait.
pub struct PendingPreview {
    drawn: RgbImage,
    /// Width and height to which it is brought.
    size: (u32, u32),
    /// The picture that it is a part of.
    paste: Option<Arc<Paste>>,
}

impl PendingPreview {
    pub(crate) fn new(drawn: RgbImage, size: (u32, u32), paste: Option<Arc<Paste>>) -> Self {
        Self { drawn, size, paste }
    }

    /// The picture.
    pub fn picture(self) -> RgbImage {
        let Self { drawn, size: (width, height), paste } = self;
        let drawn = match drawn.dimensions() == (width, height) {
            true => drawn,
            false => resize(&drawn, width, height, FilterType::Triangle),
        };
        match paste {
            Some(paste) => paste.onto(&drawn),
            None => drawn,
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn each_channel_adds_its_colours() {
        let map = LatentRgb {
            factors: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [-1.0; 3]],
            bias: [0.0, 0.0, -1.0],
        };
        let at = |values: [f32; 4]| {
            let latents = Tensor::new(&values, &Device::Cpu).unwrap().reshape((1, 4, 1, 1)).unwrap();
            PendingPreview::new(map.picture(&latents).unwrap(), (2, 3), None).picture()
        };
        let picture = at([1.0, 0.0, 0.0, 0.0]);
        assert_eq!(picture.dimensions(), (2, 3));
        assert!(picture.pixels().all(|pixel| pixel.0 == [255, 128, 0]));
        assert_eq!(at([0.0, 0.0, 2.0, 1.0]).get_pixel(0, 0).0, [0, 0, 128]);
        assert_eq!(at([f32::NAN, 0.0, 0.0, 0.0]).get_pixel(1, 1).0, [0; 3]);
    }
}
