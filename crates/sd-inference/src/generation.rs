//! One request on its way to images: a value that is advanced step by step.

mod hires;
mod previews;
mod refine;

use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::Tensor;
use image::RgbImage;
use sd_models::nn::{Seamless, Workspace};
use sd_models::unet::{AddedCondition, Residuals, UnetInputs};
use sd_models::vae::{Canvas, Tiles};

use crate::condition::{self, Condition};
use crate::control::{Controls, Moment};
use crate::guidance::Guidance;
use crate::init::{Begun, Place};
use crate::pipeline::{Parts, Work};
use crate::preview::to_image;
use crate::repaint::{Keep, Paste};
use crate::rng::{BatchNoise, NoiseKind};
use crate::schedulers::{Sampler, Scheduler, SchedulerOptions};
use crate::{Error, GenerationRequest, Result};

use hires::SecondPass;
pub use hires::{Hires, Upscaler};
pub use refine::Refiner;
use refine::{FirstPass, HandOver};

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
    paste: Option<Arc<Paste>>,
    /// Images in a row whose prompts are equally long share one.
    conditions: Vec<Condition>,
    guidance: Guidance,
    controls: Controls,
    /// The sampler's step that comes first: image-to-image leaves the earlier ones out.
    first: usize,
    /// The sampler's step that comes next.
    next: usize,
    /// The steps of this pass that another model took.
    before: usize,
    /// The steps of an earlier pass.
    taken: usize,
    /// The model that takes over in this pass.
    refiner: Option<Box<HandOver>>,
    /// The pass that follows this one.
    second: Option<Box<SecondPass>>,
    seed: u64,
    rng: NoiseKind,
    width: usize,
    height: usize,
    /// How the VAE decodes.
    canvas: Canvas,
    notes: Vec<String>,
    timings: Timings,
    /// The last step: its number, the latents before it, and the UNet's answer.
    last: Option<(usize, Tensor, Tensor)>,
    /// The first images, once all steps are taken.
    decoded: Vec<RgbImage>,
    /// Keeps the UNet's memory from the first step to the last.
    workspace: Option<Workspace>,
}

/// What a step asks of the UNet: rows of a batch, which several generations may share.
pub(crate) struct Rows {
    /// `(rows, channels, height, width)`; with guidance the negative half comes first.
    pub(crate) input: Tensor,
    /// For each row.
    pub(crate) timesteps: Vec<f64>,
    /// `(rows, tokens, width)`.
    pub(crate) states: Tensor,
    pub(crate) added: Option<AddedCondition>,
    /// The guidance scale of each row, for models that take it as a condition; else empty.
    pub(crate) guidance_scales: Vec<f64>,
    pub(crate) seamless: Seamless,
    /// What ControlNets add to the UNet's states.
    pub(crate) control: Option<Residuals>,
}

/// A step that was taken: one evaluation of the UNet. Some samplers take more of them than were asked for
/// ([`Sampler::evaluations`]).
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
    /// Encoding the picture that the generation starts from, and those that control it.
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
        let guidance = Guidance::new(request, info)?;
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
        let taken = match &request.init {
            Some(init) => init.steps_of(steps)?,
            None => steps,
        };
        if info.inpainting && request.init.as_ref().is_none_or(|init| init.mask.is_none()) {
            let limit = "a picture with a mask: the model was made for inpainting";
            return Err(invalid("init", "without a mask", limit));
        }
        if info.refines && request.init.is_none() {
            return Err(invalid("init", "none", "a picture: the model refines pictures"));
        }
        let guided = guidance.is_wanted();
        let batch = request.num_images.saturating_mul(if guided { 2 } else { 1 });
        Controls::check(&parts, &request.controls)?;
        let control = Controls::work(&parts, &request.controls, batch, [width, height]);
        let work = Work { width, height, batch, control, enlarging: 0, beside: 0 };
        let work = parts.with_previews(work, request.preview);
        let plan = parts.budget.check_work(parts.unet.config(), parts.vae.config(), work)?;
        let options = SchedulerOptions {
            steps,
            sampler: request.sampler,
            schedule: request.schedule,
            spacing: request.timestep_spacing,
            eta: request.eta,
        };
        let scheduler = parts.scheduler.start(&options)?;
        let first = match taken {
            0 => scheduler.steps(),
            taken => scheduler.step_after(steps - taken),
        };
        let second = match request.hires {
            Some(hires) => Some(Box::new(hires.plan(&parts, request, work, options.clone())?)),
            None => None,
        };

        let (start, encoding) = (Instant::now(), tracing::debug_span!("text_encode").entered());
        let (conditions, mut notes) = condition::conditions(&parts, request, guided, [width, height])?;
        let refiner = match &request.refiner {
            Some(refiner) => {
                let pass = FirstPass { work, options, scheduler: scheduler.as_ref(), first, guided };
                refiner.plan(&parts, request, pass, &mut notes)?.map(Box::new)
            }
            None => None,
        };
        if let Some(init) = request.init.as_ref().filter(|init| taken == 0 && init.strength > 0.0) {
            let strength = init.strength;
            notes.push(format!(
                "strength {strength} of {steps} steps is less than one step: the picture only passes through the VAE"
            ));
        }
        if let Some(tiles) = plan.tiles {
            let side = tiles.pixels();
            notes.push(format!(
                "the VAE decodes in tiles of {side} pixels to save memory; the picture differs a little from one \
                 decoded at once"
            ));
        }
        parts.device.synchronize()?;
        drop(encoding);
        let mut timings = Timings { text_encode: start.elapsed(), ..Timings::default() };

        let mut noise = BatchNoise::new(request.rng, request.seed, request.num_images);
        let canvas = Canvas { tiles: plan.tiles, seamless: request.seamless };
        let place = Place {
            images: request.num_images,
            width,
            height,
            step: first,
            inpainting_model: info.inpainting,
            canvas,
            device: &parts.device,
        };
        let sees_pictures = request.init.is_some() || !request.controls.is_empty();
        let _encoding = sees_pictures.then(|| tracing::debug_span!("image_encode").entered());
        let start = Instant::now();
        let begun = match &request.init {
            None => Begun::from_noise(&parts.vae, scheduler.as_ref(), &mut noise, &place)?,
            Some(init) => init.begin(&parts.vae, scheduler.as_ref(), &mut noise, &place)?,
        };
        if request.init.is_some() {
            parts.device.synchronize()?;
            timings.image_encode = start.elapsed();
        }
        let Begun { latents, keep, seen, paste } = begun;
        let mut controls = Controls::default();
        if !request.controls.is_empty() {
            let start = Instant::now();
            controls = Controls::begin(request, paste.as_ref());
            controls.embed(&parts, [width, height], canvas.seamless)?;
            parts.device.synchronize()?;
            timings.image_encode += start.elapsed();
        }
        Ok(Self {
            scheduler,
            noise,
            latents,
            keep,
            seen,
            paste: paste.map(Arc::new),
            conditions,
            guidance,
            controls,
            first,
            next: first,
            before: 0,
            taken: 0,
            refiner,
            second,
            seed: request.seed,
            rng: request.rng,
            width,
            height,
            canvas,
            notes,
            timings,
            last: None,
            decoded: Vec::new(),
            workspace: None,
            parts,
        })
    }

    /// Takes the next step, or says that there is none.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when the numbers left their range; device errors.
    pub fn step(&mut self) -> Result<Option<Step>> {
        let start = Instant::now();
        let Some(asked) = self.ask()? else { return Ok(None) };
        let answers = asked.iter().map(|rows| rows.predict(&self.parts)).collect::<Result<_>>()?;
        self.advance(answers, start).map(Some)
    }

    /// What the next step asks of the UNet, if there is one.
    pub(crate) fn ask(&mut self) -> Result<Option<Vec<Rows>>> {
        if let Some(refiner) = self.refiner.take_if(|refiner| refiner.is_due(self.next)) {
            self.hand_over(*refiner);
        }
        if self.next == self.scheduler.steps() {
            match self.second.take() {
                Some(second) => self.enlarge(*second)?,
                None => return Ok(None),
            }
        }
        self.workspace.get_or_insert_default();
        let input = self.scheduler.scale_model_input(&self.latents, self.next)?;
        self.conditions.iter().map(|condition| self.rows(condition, &input)).collect::<Result<_>>().map(Some)
    }

    /// The rows of the images that `condition` is about, out of the `input` of all.
    fn rows(&self, condition: &Condition, input: &Tensor) -> Result<Rows> {
        let own = |tensor: &Tensor| tensor.narrow(0, condition.images.start, condition.images.len());
        let latents = own(input)?;
        let guided = self.guidance_counts();
        let (states, added) = match guided {
            true => (condition.states.clone(), condition.added.clone()),
            false => condition.positive()?,
        };
        let timestep = self.scheduler.timesteps()[self.next];
        let (taken, total) = self.in_pass();
        let control = self.controls.residuals(&Moment {
            taken,
            total,
            timestep,
            latents: &latents,
            states: &states,
            added: added.as_ref(),
            guided,
        })?;
        let mut input = match &self.seen {
            Some(seen) => Tensor::cat(&[&latents, &own(seen)?], 1)?,
            None => latents,
        };
        if guided {
            input = Tensor::cat(&[&input, &input], 0)?;
        }
        let rows = input.dim(0)?;
        let timesteps = vec![timestep; rows];
        let guidance_scales =
            if self.guidance.distilled { vec![self.guidance.scale; rows] } else { Vec::new() };
        let seamless = self.canvas.seamless;
        Ok(Rows { input, timesteps, states, added, guidance_scales, seamless, control })
    }

    /// Whether the next step is asked with and without the prompt.
    fn guidance_counts(&self) -> bool {
        let (taken, total) = self.in_pass();
        self.guidance.counts_at(taken, total)
    }

    /// How many steps of this pass have been taken, and how many it has.
    fn in_pass(&self) -> (usize, usize) {
        let left = match &self.refiner {
            Some(refiner) => refiner.total(self.first),
            None => self.scheduler.steps() - self.first,
        };
        (self.before + self.next - self.first, self.before + left)
    }

    /// Takes the step that [asked](Self::ask) for these answers.
    pub(crate) fn advance(&mut self, answers: Vec<Tensor>, start: Instant) -> Result<Step> {
        let (total, timestep) = (self.total_steps(), self.scheduler.timesteps()[self.next]);
        let guided = |answer: &Tensor| match self.guidance_counts() {
            true => {
                let halves = answer.chunk(2, 0)?;
                self.guidance.combine(&halves[0], &halves[1])
            }
            false => Ok(answer.clone()),
        };
        let predictions = answers.iter().map(guided).collect::<Result<Vec<_>>>()?;
        let prediction = Tensor::cat(&predictions, 0)?;
        let latents = self.scheduler.step(&prediction, self.next, &self.latents, &mut self.noise)?;
        self.decoded.clear();
        self.last = Some((self.next, std::mem::replace(&mut self.latents, latents), prediction));
        if let Some(keep) = &self.keep {
            self.latents = keep.restore(&self.latents, self.scheduler.as_ref(), self.next + 1)?;
        }
        self.parts.device.synchronize()?;
        self.next += 1;
        if self.next == self.scheduler.steps() {
            self.workspace = None;
        }
        let elapsed = start.elapsed();
        self.timings.denoise += elapsed;
        Ok(Step { index: self.steps_taken(), total, timestep, elapsed })
    }

    /// The model that it runs on.
    pub(crate) fn parts(&self) -> &Arc<Parts> {
        &self.parts
    }

    /// Decodes the latents as they are now: the images, once all steps are taken.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when the numbers left their range; device errors.
    pub fn decode(&self) -> Result<Vec<RgbImage>> {
        (0..self.latents.dim(0)?).map(|index| self.picture(index)).collect()
    }

    /// Decodes the next image ahead of [`finish`](Self::finish), once all steps are taken: between two, a caller may stop.
    /// False: all are decoded.
    ///
    /// # Errors
    /// As [`Generation::decode`].
    pub fn decode_next(&mut self) -> Result<bool> {
        let start = Instant::now();
        let index = self.decoded.len();
        if index == self.latents.dim(0)? {
            return Ok(false);
        }
        let _decoding = tracing::debug_span!("decode").entered();
        let picture = self.picture(index)?;
        self.decoded.push(picture);
        self.timings.decode += start.elapsed();
        Ok(true)
    }

    /// One image, decoded by itself: the decoder's memory is that of one image however many there are.
    fn picture(&self, index: usize) -> Result<RgbImage> {
        let latents = self.latents.narrow(0, index, 1)?;
        // Nothing that is finite is lost to a zero, and what is not stays.
        if (&latents * 0.0)?.sum_all()?.to_scalar::<f32>()? != 0.0 {
            return Err(Error::NotFinite { stage: "the denoising".into() });
        }
        Ok(self.whole(self.drawn(&latents)?))
    }

    /// The picture that the VAE makes of one image's latents.
    fn drawn(&self, latents: &Tensor) -> Result<RgbImage> {
        let _workspace = Workspace::new();
        to_image(&self.parts.vae.decode(latents, self.canvas)?)
    }

    /// What was drawn, in the picture that it is a part of.
    fn whole(&self, drawn: RgbImage) -> RgbImage {
        match &self.paste {
            Some(paste) => paste.onto(&drawn),
            None => drawn,
        }
    }

    /// Decodes what is not decoded yet and ends the generation.
    ///
    /// # Errors
    /// As [`Generation::decode`].
    pub fn finish(mut self) -> Result<Finished> {
        while self.decode_next()? {}
        let images = std::mem::take(&mut self.decoded).into_iter().zip(0u64..);
        let images = images.map(|(image, index)| (image, self.seed.wrapping_add(index))).collect();
        Ok(Finished { images, timings: self.timings, vae_tile: self.canvas.tiles.map(Tiles::pixels) })
    }

    /// The current latents `(num_images, channels, height, width)`, f32.
    pub fn latents(&self) -> &Tensor {
        &self.latents
    }

    /// How long the parts took so far.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// How many steps the whole generation takes, counted as in [`Step`].
    pub fn total_steps(&self) -> usize {
        let second = self.second.as_ref().map_or(0, |second| second.scheduler.steps() - second.first);
        self.taken + self.in_pass().1 + second
    }

    /// How many have been taken.
    pub fn steps_taken(&self) -> usize {
        self.taken + self.in_pass().0
    }

    /// Width and height of the images in pixels.
    pub fn size(&self) -> (usize, usize) {
        match (&self.second, &self.paste) {
            (Some(second), _) => (second.width, second.height),
            (None, Some(paste)) => paste.size(),
            (None, None) => (self.width, self.height),
        }
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

impl Rows {
    /// The UNet's answer.
    pub(crate) fn predict(&self, parts: &Parts) -> Result<Tensor> {
        let inputs = UnetInputs {
            added: self.added.as_ref(),
            guidance_scales: &self.guidance_scales,
            seamless: self.seamless,
            control: self.control.as_ref(),
        };
        Ok(parts.unet.forward_with(&self.input, &self.timesteps, &self.states, inputs)?)
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
