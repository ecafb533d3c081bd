//! A second pass over a larger picture, for sizes beyond those that a model was trained on: what the first pass drew is
//! enlarged and redrawn in part ("hires fix").

use candle_core::{Device, Tensor};
use sd_models::vae::Canvas;

use super::{Generation, invalid};
use crate::control::Controls;
use crate::init::{steps_taken, to_pixels};
use crate::pipeline::{Parts, Work};
use crate::repaint::scaled;
use crate::rng::{BatchNoise, NoiseSource};
use crate::schedulers::{Scheduler, SchedulerOptions};
use crate::{GenerationRequest, Result, Seamless, UpscaleNetwork, UpscaleOptions, circular};

/// The most that a side may grow.
const MAX_SCALE: f64 = 4.0;

/// The second pass of a generation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hires {
    /// How much longer the sides of the result are than those of the first pass, 1 to 4; rounded down to the multiple that
    /// sizes need.
    pub scale: f64,
    /// What is enlarged.
    pub upscaler: Upscaler,
    /// Which part of the second pass's steps is taken, over 0 and up to 1, as of [`InitImage`](crate::InitImage::strength).
    pub strength: f64,
    /// The steps of which that part is taken; `None`: as many as the first pass has.
    pub steps: Option<usize>,
}

/// How the first pass's picture is enlarged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Upscaler {
    /// The latents, bilinearly: soft, so that it wants a strength of about a half or more.
    Latent,
    /// The decoded picture, by a Lanczos filter.
    Lanczos,
    /// The decoded picture, by the network that was loaded beside the model
    /// ([`LoadOptions::upscaler`](crate::LoadOptions::upscaler)), whatever its own scale is.
    Network,
}

/// A second pass that waits for the end of the first.
pub(super) struct SecondPass {
    upscaler: Upscaler,
    pub(super) scheduler: Box<dyn Scheduler>,
    pub(super) first: usize,
    pub(super) width: usize,
    pub(super) height: usize,
    canvas: Canvas,
}

impl Hires {
    /// Width and height of the result.
    fn size(&self, width: usize, height: usize, multiple: usize) -> (usize, usize) {
        let side = |side: usize| (side as f64 * self.scale) as usize / multiple * multiple;
        (side(width), side(height))
    }

    /// Checks all that could go wrong with the second pass before the first begins.
    pub(super) fn plan(
        &self,
        parts: &Parts,
        request: &GenerationRequest,
        work: Work,
        options: SchedulerOptions,
    ) -> Result<SecondPass> {
        let Self { scale, upscaler, strength, .. } = *self;
        if !(1.0..=MAX_SCALE).contains(&scale) {
            return Err(invalid("hires.scale", scale, format!("a number from 1 to {MAX_SCALE}")));
        }
        if request.init.as_ref().is_some_and(|init| init.mask.is_some()) {
            return Err(invalid("hires", "with a mask", "not together with a mask"));
        }
        if upscaler != Upscaler::Latent {
            parts.vae.check_encodes()?;
        }
        if upscaler == Upscaler::Network && parts.upscaler.is_none() {
            return Err(invalid("hires.upscaler", "network", "latent or lanczos: no network was loaded"));
        }
        let steps = self.steps.unwrap_or(options.steps);
        let taken = steps_taken("hires.strength", strength, steps)?;
        if taken == 0 {
            let value = format!("{strength} of {steps} steps");
            return Err(invalid("hires.strength", value, "at least one step"));
        }
        let (width, height) = self.size(work.width, work.height, parts.info.size_multiple);
        let control = Controls::work(parts, &request.controls, work.batch, [width, height]);
        let enlarging = match (upscaler, &parts.upscaler) {
            (Upscaler::Network, Some(network)) => {
                network.workspace((work.width as u32, work.height as u32), &by_network(request.seamless))
            }
            _ => 0,
        };
        let work = Work { width, height, control, enlarging, ..work };
        let work = parts.with_previews(work, request.preview);
        let plan = parts.budget.check_work(parts.unet.config(), parts.vae.config(), work)?;
        let scheduler = parts.scheduler.start(&SchedulerOptions { steps, ..options })?;
        let canvas = Canvas { tiles: plan.tiles, seamless: request.seamless };
        let first = scheduler.step_after(steps - taken);
        Ok(SecondPass { upscaler, scheduler, first, width, height, canvas })
    }
}

impl Generation {
    /// Begins the second pass with what the first has drawn.
    ///
    /// Its noise is that of a run of its own with the same seed: first the sample of the VAE's distribution, where a picture
    /// is encoded, then the noise.
    pub(super) fn enlarge(&mut self, second: SecondPass) -> Result<()> {
        let SecondPass { upscaler, scheduler, first, width, height, canvas } = second;
        let mut noise = BatchNoise::new(self.rng, self.seed, self.latents.dim(0)?);
        let original = match upscaler {
            Upscaler::Latent => {
                let scale = self.parts.vae.config().scale_factor();
                bilinear(&self.latents, height / scale, width / scale)?
            }
            Upscaler::Lanczos => self.redrawn(None, width, height, canvas, &mut noise)?,
            Upscaler::Network => {
                let network = self.parts.upscaler.clone();
                self.redrawn(network.as_deref(), width, height, canvas, &mut noise)?
            }
        };
        let fresh = noise.randn(original.dims(), &self.parts.device)?;
        self.latents = scheduler.add_noise(&original, &fresh, first)?;
        self.taken += self.scheduler.steps() - self.first;
        (self.scheduler, self.noise, self.first, self.next) = (scheduler, noise, first, first);
        (self.width, self.height, self.canvas) = (width, height, canvas);
        self.conditions.iter_mut().for_each(|condition| condition.resize(width, height));
        self.controls.embed(&self.parts, [width, height], canvas.seamless)?;
        self.last = None;
        Ok(())
    }

    /// The pictures of the first pass, enlarged, by the network if there is one, and encoded again.
    fn redrawn(
        &self,
        network: Option<&UpscaleNetwork>,
        width: usize,
        height: usize,
        canvas: Canvas,
        noise: &mut BatchNoise,
    ) -> Result<Tensor> {
        let (vae, device) = (&self.parts.vae, &self.parts.device);
        let pictures = self.decode()?;
        let scale = vae.config().scale_factor();
        let shape = [pictures.len(), vae.config().latent_channels, height / scale, width / scale];
        let sample = vae.draw(noise, &shape, device)?;
        let encoded = pictures.iter().enumerate().map(|(index, picture)| {
            let large = match network {
                Some(network) => network.upscale(picture, &by_network(canvas.seamless), &mut |_, _| {})?,
                None => picture.clone(),
            };
            let large = circular::scaled(&large, (width as u32, height as u32), canvas.seamless, scaled);
            let sample = sample.as_ref().map(|sample| sample.narrow(0, index, 1)).transpose()?;
            let encoded = vae.encode(&to_pixels(&large, device)?, canvas)?;
            encoded.sample(sample.as_ref(), &[1, shape[1], shape[2], shape[3]])
        });
        Ok(Tensor::cat(&encoded.collect::<Result<Vec<_>>>()?, 0)?)
    }
}

/// How the network enlarges between two passes.
fn by_network(seamless: Seamless) -> UpscaleOptions {
    UpscaleOptions { seamless, ..UpscaleOptions::default() }
}

/// Latents `(images, channels, height, width)` enlarged as `torch.nn.functional.interpolate` does with `bilinear`: pixels
/// are areas, and the outermost ones reach outwards.
fn bilinear(latents: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let (images, channels, from_height, from_width) = latents.dims4()?;
    let values = latents.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
    let (rows, columns) = (places(from_height, height), places(from_width, width));
    let mut enlarged = Vec::with_capacity(images * channels * height * width);
    for plane in values.chunks_exact(from_height * from_width) {
        for (above, below, down) in &rows {
            let value = |row: usize, column: usize| plane[row * from_width + column];
            enlarged.extend(columns.iter().map(|(left, right, along)| {
                let upper = value(*above, *left) * (1.0 - along) + value(*above, *right) * along;
                let lower = value(*below, *left) * (1.0 - along) + value(*below, *right) * along;
                upper * (1.0 - down) + lower * down
            }));
        }
    }
    Ok(Tensor::from_vec(enlarged, (images, channels, height, width), latents.device())?)
}

/// For each place of a longer line the two of the shorter that it lies between, and its way from the first to the second.
fn places(from: usize, to: usize) -> Vec<(usize, usize, f32)> {
    let scale = from as f32 / to as f32;
    let place = |at: usize| {
        let exact = ((at as f32 + 0.5) * scale - 0.5).max(0.0);
        let before = (exact as usize).min(from - 1);
        (before, (before + 1).min(from - 1), exact - before as f32)
    };
    (0..to).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of torch 2.15.0: `interpolate(tensor([[[[1., 2., 4.]]]]), (2, 6), mode="bilinear")`.
    #[test]
    fn latents_are_enlarged_as_the_reference_does_it() {
        let latents = Tensor::new(&[[[[1f32, 2.0, 4.0]]]], &Device::Cpu).unwrap();
        let enlarged = bilinear(&latents, 2, 6).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let row = [1.0, 1.25, 1.75, 2.5, 3.5, 4.0];
        assert_eq!(enlarged, [row, row].concat());
    }

    #[test]
    fn sizes_are_multiples() {
        let hires = Hires { scale: 1.55, upscaler: Upscaler::Latent, strength: 0.7, steps: None };
        assert_eq!(hires.size(64, 40, 8), (96, 56));
    }
}
