//! One request on its way to images: a value that is advanced step by step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::{DType, Tensor};
use image::RgbImage;
use sd_models::nn::Workspace;
use sd_models::unet::AddedCondition;
use sd_models::vae::Tiles;

use crate::init::{Begun, Place};
use crate::pipeline::{Parts, TextConditioning, Work};
use crate::repaint::{Keep, Paste};
use crate::rng::{BatchNoise, NoiseSource};
use crate::schedulers::{Sampler, Scheduler, SchedulerOptions};
use crate::{Error, GenerationRequest, Result};

/// A generation in progress. Everything that belongs to it alone is in here: latents, sampler state, noise.
///
/// Two generations advanced in turn give the same bytes as one after the other.
pub struct Generation {
    parts: Arc<Parts>,
    scheduler: Box<dyn Scheduler>,
    noise: BatchNoise,
    latents: Tensor,
    /// What inpainting keeps of the picture, sees beside the latents, and puts the result into.
    keep: Option<Keep>,
    seen: Option<Tensor>,
    paste: Option<Paste>,
    condition: Condition,
    guidance_scale: f64,
    /// The sampler's step that comes first: image-to-image leaves the earlier ones out.
    first: usize,
    /// The sampler's step that comes next.
    next: usize,
    seed: u64,
    width: usize,
    height: usize,
    /// The tiles that the VAE decodes; `None`: the whole picture at once.
    tiles: Option<Tiles>,
    notes: Vec<String>,
    timings: Timings,
    /// What the last step saw: its number, the UNet's input and the answer.
    last: Option<(usize, Tensor, Tensor)>,
    /// Keeps the UNet's memory from the first step to the last.
    workspace: Option<Workspace>,
}

/// What the UNet is conditioned on: the negative half first, if there is guidance.
struct Condition {
    states: Tensor,
    added: Option<AddedCondition>,
    guided: bool,
}

/// A step that was taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Which one it was, from 1.
    pub index: usize,
    /// How many there are.
    pub total: usize,
    /// The training timestep that it started from.
    pub timestep: f64,
    /// How long it took.
    pub elapsed: Duration,
}

/// How long the parts of a generation took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timings {
    /// Encoding the prompts.
    pub text_encode: Duration,
    /// Encoding the picture that the generation starts from.
    pub image_encode: Duration,
    /// All steps together.
    pub denoise: Duration,
    /// Latents to pixels.
    pub decode: Duration,
}

/// Finished images and how they came about.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The images with the seed that gives each alone.
    pub images: Vec<(RgbImage, u64)>,
    /// How long the parts took.
    pub timings: Timings,
    /// The side in pixels of the tiles that the VAE decoded, if it did not decode the whole picture at once.
    pub vae_tile: Option<usize>,
}

impl Generation {
    pub(crate) fn begin(parts: Arc<Parts>, request: &GenerationRequest) -> Result<Self> {
        let info = &parts.info;
        let width = checked_size("width", request.width.unwrap_or(info.default_width), info.size_multiple)?;
        let height =
            checked_size("height", request.height.unwrap_or(info.default_height), info.size_multiple)?;
        let guidance_scale = request.guidance_scale.unwrap_or(info.default_guidance_scale);
        if !guidance_scale.is_finite() {
            return Err(invalid("guidance_scale", guidance_scale, "a finite number"));
        }
        if request.num_images == 0 {
            return Err(invalid("num_images", 0, "at least 1"));
        }
        let max_clip_skip = info.max_clip_skip;
        if request.clip_skip > max_clip_skip {
            return Err(invalid(
                "clip_skip",
                request.clip_skip,
                format!("at most {max_clip_skip} for this model"),
            ));
        }
        let steps = request.steps.unwrap_or(info.default_steps);
        let first = match &request.init {
            Some(init) => steps - init.steps_of(steps)?,
            None => 0,
        };
        if info.inpainting && request.init.as_ref().is_none_or(|init| init.mask.is_none()) {
            let limit = "a picture with a mask: the model was made for inpainting";
            return Err(invalid("init", "without a mask", limit));
        }
        let guided = guidance_scale > 1.0;
        let batch = request.num_images.saturating_mul(if guided { 2 } else { 1 });
        let work = Work { width, height, batch };
        let plan = parts.budget.check_work(parts.unet.config(), parts.vae.config(), work)?;
        let scheduler = parts.scheduler.start(&SchedulerOptions {
            steps,
            sampler: request.sampler,
            schedule: request.schedule,
            spacing: request.timestep_spacing,
            eta: request.eta,
        })?;

        let start = Instant::now();
        let positive = parts.text.encode(&request.prompt, request.clip_skip)?;
        let negative = match guided {
            true => Some(parts.text.encode_negative(
                request.negative_prompt.as_deref(),
                &positive,
                request.clip_skip,
            )?),
            false => None,
        };
        let mut notes = Vec::new();
        if let Some(init) = request.init.as_ref().filter(|init| first == steps && init.strength > 0.0) {
            let strength = init.strength;
            notes.push(format!(
                "strength {strength} of {steps} steps is less than one step: the picture only passes through the VAE"
            ));
        }
        if positive.dropped_tokens > 0 {
            let dropped = positive.dropped_tokens;
            notes.push(format!(
                "the prompt is too long for the text encoder: its last {dropped} tokens were ignored"
            ));
        }
        if let Some(tiles) = plan.tiles {
            let side = tiles.pixels();
            notes.push(format!(
                "the VAE decodes in tiles of {side} pixels to save memory; the picture differs a little from one \
                 decoded at once"
            ));
        }
        let condition = Condition::new(&positive, negative.as_ref(), request.num_images, width, height)?;
        parts.device.synchronize()?;
        let mut timings = Timings { text_encode: start.elapsed(), ..Timings::default() };

        let scale = parts.vae.config().scale_factor();
        let channels = parts.vae.config().latent_channels;
        let mut noise = BatchNoise::new(request.rng, request.seed, request.num_images);
        let shape = [request.num_images, channels, height / scale, width / scale];
        let begun = match &request.init {
            None => {
                let latents = (noise.randn(&shape, &parts.device)? * scheduler.init_noise_sigma())?;
                Begun { latents, keep: None, seen: None, paste: None }
            }
            Some(init) => {
                let start = Instant::now();
                let (images, tiles, device) = (request.num_images, plan.tiles, &parts.device);
                let inpainting_model = info.inpainting;
                let place = Place { images, width, height, step: first, inpainting_model, tiles, device };
                let begun = init.begin(&parts.vae, scheduler.as_ref(), &mut noise, &place)?;
                device.synchronize()?;
                timings.image_encode = start.elapsed();
                begun
            }
        };
        let Begun { latents, keep, seen, paste } = begun;
        Ok(Self {
            scheduler,
            noise,
            latents,
            keep,
            seen,
            paste,
            condition,
            guidance_scale,
            first,
            next: first,
            seed: request.seed,
            width,
            height,
            tiles: plan.tiles,
            notes,
            timings,
            last: None,
            workspace: None,
            parts,
        })
    }

    /// Takes the next step, or says that there is none.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when the numbers left their range; device errors.
    pub fn step(&mut self) -> Result<Option<Step>> {
        let (total, end) = (self.total_steps(), self.scheduler.steps());
        if self.next == end {
            return Ok(None);
        }
        let start = Instant::now();
        self.workspace.get_or_insert_default();
        let timestep = self.scheduler.timesteps()[self.next];
        let input = self.scheduler.scale_model_input(&self.latents, self.next)?;
        let prediction = self.predict(&input, timestep)?;
        self.last = Some((self.next, input, prediction.clone()));
        self.latents = self.scheduler.step(&prediction, self.next, &self.latents, &mut self.noise)?;
        if let Some(keep) = &self.keep {
            self.latents = keep.restore(&self.latents, self.scheduler.as_ref(), self.next + 1)?;
        }
        self.parts.device.synchronize()?;
        self.next += 1;
        if self.next == end {
            self.workspace = None;
        }
        let elapsed = start.elapsed();
        self.timings.denoise += elapsed;
        Ok(Some(Step { index: self.steps_taken(), total, timestep, elapsed }))
    }

    /// The UNet's answer with classifier-free guidance, in one forward pass.
    fn predict(&self, input: &Tensor, timestep: f64) -> Result<Tensor> {
        let Condition { states, added, guided } = &self.condition;
        let input = &match &self.seen {
            Some(seen) => Tensor::cat(&[input, seen], 1)?,
            None => input.clone(),
        };
        if !guided {
            let timesteps = vec![timestep; input.dim(0)?];
            return Ok(self.parts.unet.forward(input, &timesteps, states, added.as_ref())?);
        }
        let both = Tensor::cat(&[input, input], 0)?;
        let timesteps = vec![timestep; both.dim(0)?];
        let output = self.parts.unet.forward(&both, &timesteps, states, added.as_ref())?.chunk(2, 0)?;
        let direction = (&output[1] - &output[0])?;
        Ok((&output[0] + (direction * self.guidance_scale)?)?)
    }

    /// Decodes the latents as they are now: the images, once all steps are taken.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when the numbers left their range; device errors.
    pub fn decode(&self) -> Result<Vec<RgbImage>> {
        let _workspace = Workspace::new();
        let vae = &self.parts.vae;
        let latents = vae.unscale(&self.latents)?;
        // One by one: the decoder's memory is that of one image however many there are.
        let decode = |latents: &Tensor| match self.tiles {
            Some(tiles) => vae.decode_tiled(latents, tiles),
            None => vae.decode(latents),
        };
        let picture = |index| {
            let drawn = to_image(&decode(&latents.narrow(0, index, 1)?)?)?;
            Ok(match &self.paste {
                Some(paste) => paste.onto(&drawn),
                None => drawn,
            })
        };
        (0..latents.dim(0)?).map(picture).collect()
    }

    /// The first picture as the last step means it to become, next to free and coarse. `None` before the first step
    /// and for a model whose latents nobody can read.
    ///
    /// # Errors
    /// Device errors.
    pub fn preview(&self) -> Result<Option<RgbImage>> {
        let (Some(map), Some((step, input, prediction))) = (&self.parts.info.latent_rgb, &self.last) else {
            return Ok(None);
        };
        let first = |tensor: &Tensor| tensor.narrow(0, 0, 1);
        let clean = self.scheduler.clean_sample(&first(prediction)?, *step, &first(input)?)?;
        map.picture(&clean, (self.width as u32, self.height as u32)).map(Some)
    }

    /// Decodes the latents and ends the generation.
    ///
    /// # Errors
    /// As [`Generation::decode`].
    pub fn finish(mut self) -> Result<Finished> {
        let start = Instant::now();
        let images = self.decode()?.into_iter().zip(0u64..);
        let images = images.map(|(image, index)| (image, self.seed.wrapping_add(index))).collect();
        self.timings.decode = start.elapsed();
        Ok(Finished { images, timings: self.timings, vae_tile: self.tiles.map(Tiles::pixels) })
    }

    /// The current latents `(num_images, channels, height, width)`, f32.
    pub fn latents(&self) -> &Tensor {
        &self.latents
    }

    /// How long the parts took so far.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// How many steps the whole generation takes.
    pub fn total_steps(&self) -> usize {
        self.scheduler.steps() - self.first
    }

    /// How many have been taken.
    pub fn steps_taken(&self) -> usize {
        self.next - self.first
    }

    /// Width and height of the images in pixels.
    pub fn size(&self) -> (usize, usize) {
        self.paste.as_ref().map_or((self.width, self.height), Paste::size)
    }

    /// The sampler in use.
    pub fn sampler(&self) -> Sampler {
        self.scheduler.sampler()
    }

    /// Things worth telling the user, such as a prompt that was cut.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

impl Condition {
    fn new(
        positive: &TextConditioning,
        negative: Option<&TextConditioning>,
        images: usize,
        width: usize,
        height: usize,
    ) -> Result<Self> {
        let positive = positive.repeat(images)?;
        let (states, pooled) = match negative {
            Some(negative) => {
                let negative = negative.repeat(images)?;
                let pooled = match (&negative.pooled, &positive.pooled) {
                    (Some(negative), Some(positive)) => Some(Tensor::cat(&[negative, positive], 0)?),
                    _ => None,
                };
                (Tensor::cat(&[&negative.states, &positive.states], 0)?, pooled)
            }
            None => (positive.states, positive.pooled),
        };
        // Original size, crop corner, target size: the picture is whole and as large as it was asked for.
        let (width, height) = (width as f64, height as f64);
        let ids = [height, width, 0.0, 0.0, height, width];
        let added = match pooled {
            Some(text_embeds) => {
                Some(AddedCondition { time_ids: vec![ids; text_embeds.dim(0)?], text_embeds })
            }
            None => None,
        };
        Ok(Self { states, added, guided: negative.is_some() })
    }
}

fn invalid(field: &'static str, value: impl ToString, limit: impl Into<String>) -> Error {
    Error::InvalidRequest { field, value: value.to_string(), limit: limit.into() }
}

fn checked_size(field: &'static str, value: usize, multiple: usize) -> Result<usize> {
    match value > 0 && value.is_multiple_of(multiple) {
        true => Ok(value),
        false => Err(invalid(field, value, format!("a multiple of {multiple} pixels"))),
    }
}

/// Pixels `(1, 3, height, width)` in -1..=1 as bytes, rounded as the reference's image processor does.
fn to_image(pixels: &Tensor) -> Result<RgbImage> {
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
