//! The picture that a generation starts from: image-to-image and inpainting.

use candle_core::{Device, Tensor};
use image::RgbImage;
use sd_models::nn::Workspace;
use sd_models::vae::Canvas;

use crate::autoencoder::{Autoencoder, Encoded, size_multiple};
use crate::repaint::{InitMask, Inputs, Keep, Paste, latent_mask, scaled, without_marked};
use crate::rng::{BatchNoise, NoiseSource};
use crate::schedulers::Scheduler;
use crate::{Error, Result};

/// A picture to start from, and how far to go from it (SDEdit: Meng and others, 2021).
#[derive(Debug, Clone, PartialEq)]
pub struct InitImage {
    /// The picture. If it is not as large as the request wants, it is scaled to that, whatever its proportions; with a mask
    /// not if only the next multiple of what the model can do is asked for. Then the result is as large as the picture.
    pub image: RgbImage,
    /// Which part of the steps is taken, 0 to 1: 0 none, so that the picture comes back as the VAE makes it; 1 all,
    /// from almost pure noise.
    pub strength: f64,
    /// What is redrawn, if not all: inpainting.
    pub mask: Option<InitMask>,
}

impl InitImage {
    /// How many of `steps` are taken: their share, rounded down.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for a strength that is no share.
    pub(crate) fn steps_of(&self, steps: usize) -> Result<usize> {
        steps_taken("strength", self.strength, steps)
    }

    /// Encodes the picture and begins at the noise level of `place.step`.
    ///
    /// Noise is drawn in the reference's order: the sample of the VAE's distribution, the noise of the run, and for a mask
    /// the sample for the picture without what is marked. Where no step is left to take, nothing is random.
    pub(crate) fn begin(
        &self,
        vae: &Autoencoder,
        scheduler: &dyn Scheduler,
        noise: &mut BatchNoise,
        place: &Place<'_>,
    ) -> Result<Begun> {
        let (width, height) = (place.width as u32, place.height as u32);
        let multiple = size_multiple(vae.config()) as u32;
        let (picture, mask) = match &self.mask {
            None => (scaled(&self.image, width, height), None),
            Some(mask) => {
                let Inputs { picture, mask, paste } = mask.inputs(&self.image, (width, height), multiple)?;
                (picture, Some((mask, paste)))
            }
        };
        if place.step == scheduler.steps() {
            let mean = place.encode(vae, &to_pixels(&picture, place.device)?)?.mean()?;
            let latents = mean.broadcast_as(&place.latents(vae))?.contiguous()?;
            return Ok(Begun { latents, keep: None, seen: None, paste: mask.map(|(_, paste)| paste) });
        }
        let Some((mask, paste)) = mask else {
            let (latents, _, _) = self.latents(vae, scheduler, noise, place, &picture, Wanted::Always)?;
            return Ok(Begun { latents, keep: None, seen: None, paste: None });
        };
        let marks = latent_mask(&mask, vae.config().scale_factor() as u32, place.device)?;
        let encoded = if place.inpainting_model { Wanted::Below1 } else { Wanted::Always };
        let (latents, original, first) = self.latents(vae, scheduler, noise, place, &picture, encoded)?;
        // Every kind of model has it drawn.
        let sample = vae.draw(noise, latents.dims(), place.device)?;
        let (mut keep, mut seen) = (None, None);
        if place.inpainting_model {
            let pixels = without_marked(&to_pixels(&picture, place.device)?, &mask)?;
            let known = place.encode(vae, &pixels)?.sample(sample.as_ref(), latents.dims())?;
            let (images, _, rows, columns) = latents.dims4()?;
            seen = Some(Tensor::cat(
                &[&marks.broadcast_as((images, 1, rows, columns))?.contiguous()?, &known],
                1,
            )?);
        } else if let Some(original) = original {
            keep = Some(Keep { original, noise: first, mask: marks });
        }
        Ok(Begun { latents, keep, seen, paste: Some(paste) })
    }

    /// The latents that the run begins with, those of the picture, and the noise that they are mixed from.
    fn latents(
        &self,
        vae: &Autoencoder,
        scheduler: &dyn Scheduler,
        noise: &mut BatchNoise,
        place: &Place<'_>,
        picture: &RgbImage,
        encoded: Wanted,
    ) -> Result<(Tensor, Option<Tensor>, Tensor)> {
        let latents = place.latents(vae);
        // Only inpainting takes "all" at its word, as the reference does.
        let from_noise = self.mask.is_some() && self.strength >= 1.0;
        let mut original = None;
        if !from_noise || encoded == Wanted::Always {
            let encoded = place.encode(vae, &to_pixels(picture, place.device)?)?;
            let sample = vae.draw(noise, &latents, place.device)?;
            original = Some(encoded.sample(sample.as_ref(), &latents)?);
        }
        let noise = noise.randn(&latents, place.device)?;
        let first = match &original {
            Some(original) if !from_noise => scheduler.add_noise(original, &noise, place.step)?,
            _ => (&noise * scheduler.init_noise_sigma())?,
        };
        Ok((first, original, noise))
    }
}

/// How many of `steps` a strength takes.
pub(crate) fn steps_taken(field: &'static str, strength: f64, steps: usize) -> Result<usize> {
    if !(0.0..=1.0).contains(&strength) {
        let limit = "a number from 0 to 1".into();
        return Err(Error::InvalidRequest { field, value: strength.to_string(), limit });
    }
    Ok(((steps as f64 * strength) as usize).min(steps))
}

/// When the picture itself is encoded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Always,
    /// Models made for inpainting need it only if the run does not begin with pure noise.
    Below1,
}

/// How a run begins.
pub(crate) struct Begun {
    pub(crate) latents: Tensor,
    /// What is kept of the picture, where the sampler has to see to it.
    pub(crate) keep: Option<Keep>,
    /// What a model made for inpainting sees beside the latents: mask and picture, `(images, 5, height, width)`.
    pub(crate) seen: Option<Tensor>,
    /// How the result is put together, if only a part is redrawn.
    pub(crate) paste: Option<Paste>,
}

impl Begun {
    /// From pure noise.
    pub(crate) fn from_noise(
        vae: &Autoencoder,
        scheduler: &dyn Scheduler,
        noise: &mut BatchNoise,
        place: &Place<'_>,
    ) -> Result<Self> {
        let latents = (noise.randn(&place.latents(vae), place.device)? * scheduler.init_noise_sigma())?;
        Ok(Self { latents, keep: None, seen: None, paste: None })
    }
}

/// What a run begins with beside its picture.
pub(crate) struct Place<'a> {
    pub(crate) images: usize,
    /// In pixels.
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// The sampler's step that comes first.
    pub(crate) step: usize,
    /// Whether the UNet takes mask and picture beside the latents.
    pub(crate) inpainting_model: bool,
    /// How the VAE encodes.
    pub(crate) canvas: Canvas,
    pub(crate) device: &'a Device,
}

impl Place<'_> {
    fn latents(&self, vae: &Autoencoder) -> [usize; 4] {
        let scale = vae.config().scale_factor();
        [self.images, vae.config().latent_channels, self.height / scale, self.width / scale]
    }

    fn encode<'v>(&self, vae: &'v Autoencoder, pixels: &Tensor) -> Result<Encoded<'v>> {
        let _workspace = Workspace::new();
        vae.encode(pixels, self.canvas)
    }
}

/// Bytes as pixels `(1, 3, height, width)` in -1..=1.
pub(crate) fn to_pixels(image: &RgbImage, device: &Device) -> Result<Tensor> {
    let (width, height) = image.dimensions();
    let values: Vec<f32> = image.as_raw().iter().map(|byte| f32::from(*byte) / 255.0 * 2.0 - 1.0).collect();
    let pixels = Tensor::from_vec(values, (height as usize, width as usize, 3), &Device::Cpu)?;
    Ok(pixels.permute((2, 0, 1))?.unsqueeze(0)?.contiguous()?.to_device(device)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(strength: f64, steps: usize) -> Result<usize> {
        InitImage { image: RgbImage::new(8, 8), strength, mask: None }.steps_of(steps)
    }

    #[test]
    fn strength_is_a_share_of_the_steps_rounded_down() {
        for (strength, of, taken) in
            [(0.0, 20, 0), (1.0, 20, 20), (0.8, 20, 16), (0.75, 5, 3), (0.19, 5, 0), (0.3, 10, 3)]
        {
            assert_eq!(steps(strength, of).unwrap(), taken, "{strength} of {of}");
        }
    }

    #[test]
    fn what_is_no_share_is_refused_with_its_limit() {
        for strength in [-0.1, 1.01, f64::NAN, f64::INFINITY] {
            let message = steps(strength, 5).unwrap_err().to_string();
            assert!(message.contains("strength") && message.contains("0 to 1"), "{message}");
        }
    }
}
