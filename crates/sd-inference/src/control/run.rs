//! ControlNets at work in one run.

use candle_core::{Device, Tensor};
use image::RgbImage;
use sd_models::controlnet::Emphasis;
use sd_models::nn::{FeatureMap, Seamless, Workspace};
use sd_models::unet::{AddedCondition, Residuals};

use super::Control;
use crate::pipeline::{ControlWork, Parts};
use crate::repaint::{Paste, scaled};
use crate::{GenerationRequest, Result};

/// The control pictures of one run.
#[derive(Default)]
pub(crate) struct Controls {
    controls: Vec<Control>,
    /// What their nets see of them, at the size of the run.
    hints: Vec<FeatureMap>,
    guess_mode: bool,
}

/// One step of a run as a ControlNet sees it.
pub(crate) struct Moment<'a> {
    /// Steps that the run has taken.
    pub(crate) taken: usize,
    /// Steps that the run takes in all.
    pub(crate) total: usize,
    /// The training timestep.
    pub(crate) timestep: f64,
    /// The sampler's latents as the UNet sees them, once for each picture.
    pub(crate) latents: &'a Tensor,
    /// What the UNet is conditioned on; with guidance twice as many samples as latents, the negative ones first.
    pub(crate) states: &'a Tensor,
    pub(crate) added: Option<&'a AddedCondition>,
    pub(crate) guided: bool,
}

impl Controls {
    /// # Errors
    /// [`Error::InvalidRequest`](crate::Error::InvalidRequest) names the field that is out of its range.
    pub(crate) fn check(parts: &Parts, controls: &[Control]) -> Result<()> {
        controls.iter().try_for_each(|control| {
            control.check()?;
            control.net.check_owner(parts)
        })
    }

    /// What the nets take beside the model, for `batch` latents of a picture of this size.
    pub(crate) fn work(
        parts: &Parts,
        controls: &[Control],
        batch: usize,
        [width, height]: [usize; 2],
    ) -> ControlWork {
        let scale = parts.vae.config().scale_factor();
        let residuals = |control: &Control| {
            control.net.model().config().residual_bytes(batch, height / scale, width / scale)
        };
        // The sum so far and what the next net adds to it.
        let residuals = controls.iter().take(2).map(residuals).fold(0, u64::saturating_add);
        ControlWork { weights: parts.nets.load(std::sync::atomic::Ordering::Relaxed), residuals }
    }

    /// The control pictures of a request. Where only a part of a picture is worked on, the same part of theirs counts.
    pub(crate) fn begin(request: &GenerationRequest, part: Option<&Paste>) -> Self {
        let cut = |control: &Control| Control {
            image: part.map_or_else(|| control.image.clone(), |part| part.cut(&control.image)),
            ..control.clone()
        };
        let controls = request.controls.iter().map(cut).collect();
        Self { controls, hints: Vec::new(), guess_mode: request.guess_mode }
    }

    /// Embeds the pictures for a run of this size, or a pass of it.
    pub(crate) fn embed(
        &mut self,
        parts: &Parts,
        [width, height]: [usize; 2],
        seamless: Seamless,
    ) -> Result<()> {
        let _workspace = Workspace::new();
        let embed = |control: &Control| {
            let image = scaled(&control.image, width as u32, height as u32);
            Ok(control.net.model().embed(&to_pixels(&image, parts)?, seamless)?)
        };
        self.hints = self.controls.iter().map(embed).collect::<Result<_>>()?;
        Ok(())
    }

    /// What the nets that count in this step add to the UNet's states, all together; `None` where none does.
    ///
    /// In guess mode they see and steer only the half with the prompt, as in the reference.
    pub(crate) fn residuals(&self, moment: &Moment<'_>) -> Result<Option<Residuals>> {
        let Moment { taken, total, timestep, latents, states, added, guided } = *moment;
        let controls = self.controls.iter().zip(&self.hints);
        let mut counting = controls.filter(|(control, _)| control.counts(taken, total)).peekable();
        if counting.peek().is_none() {
            return Ok(None);
        }
        let images = latents.dim(0)?;
        let prompted = match (guided, self.guess_mode) {
            (true, true) => Some((
                states.narrow(0, images, images)?.contiguous()?,
                added.map(|added| last(added, images)).transpose()?,
            )),
            _ => None,
        };
        let doubled = match (guided, &prompted) {
            (true, None) => Some(Tensor::cat(&[latents, latents], 0)?),
            _ => None,
        };
        let latents = doubled.as_ref().unwrap_or(latents);
        let (states, added) = match &prompted {
            Some((states, added)) => (states, added.as_ref()),
            None => (states, added),
        };
        let timesteps = vec![timestep; latents.dim(0)?];
        let mut sum: Option<Residuals> = None;
        for (control, hint) in counting {
            let scale = control.conditioning_scale;
            let emphasis = if self.guess_mode { Emphasis::Rising(scale) } else { Emphasis::Even(scale) };
            let residuals =
                control.net.model().forward(latents, &timesteps, states, added, hint, emphasis)?;
            sum = Some(match sum {
                Some(sum) => sum.add(&residuals)?,
                None => residuals,
            });
        }
        Ok(sum)
    }
}

/// The added conditions of the last `count` samples.
fn last(added: &AddedCondition, count: usize) -> Result<AddedCondition> {
    let first = added.time_ids.len() - count;
    Ok(AddedCondition {
        text_embeds: added.text_embeds.narrow(0, first, count)?.contiguous()?,
        time_ids: added.time_ids[first..].to_vec(),
    })
}

/// Bytes as pixels `(1, 3, height, width)` in 0..=1: control pictures are not centred around zero.
fn to_pixels(image: &RgbImage, parts: &Parts) -> Result<Tensor> {
    let (width, height) = image.dimensions();
    let values: Vec<f32> = image.as_raw().iter().map(|byte| f32::from(*byte) / 255.0).collect();
    let pixels = Tensor::from_vec(values, (height as usize, width as usize, 3), &Device::Cpu)?;
    let pixels = pixels.permute((2, 0, 1))?.unsqueeze(0)?.contiguous()?.to_device(&parts.device)?;
    Ok(match parts.device.is_cpu() {
        true => pixels,
        false => pixels.to_dtype(parts.dtype)?,
    })
}
