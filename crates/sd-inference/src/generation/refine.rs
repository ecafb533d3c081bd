//! A second model that takes over late in a run: the refiner of SDXL ("ensemble of expert denoisers").
//!
//! References: `denoising_end` of `StableDiffusionXLPipeline`, `denoising_start` of `StableDiffusionXLImg2ImgPipeline`.

use std::sync::Arc;

use super::{Generation, invalid};
use crate::condition::{self, Condition};
use crate::control::Controls;
use crate::pipeline::{Parts, Work};
use crate::schedulers::{Scheduler, SchedulerConfig, SchedulerOptions};
use crate::{GenerationRequest, Result};

/// When the [refiner](crate::LoadOptions::refiner) takes over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Refiner {
    /// After which share of the noise, counted in training timesteps, over 0 and below 1. 0.8 is usual: the refiner takes
    /// the last fifth.
    pub start: f64,
}

/// A refiner that waits for its turn.
pub(super) struct HandOver {
    parts: Arc<Parts>,
    scheduler: Box<dyn Scheduler>,
    conditions: Vec<Condition>,
    /// The first model's step before which it takes over.
    at: usize,
    /// Its own step that comes first.
    from: usize,
}

/// The pass that the first model begins.
pub(super) struct FirstPass<'a> {
    pub(super) work: Work,
    pub(super) options: SchedulerOptions,
    pub(super) scheduler: &'a dyn Scheduler,
    /// The step that comes first.
    pub(super) first: usize,
    pub(super) guided: bool,
}

impl Refiner {
    /// Checks all that could go wrong with the hand-over and prepares it, with the sampler and the schedule of the first
    /// model. `None` and a note where no step is left to the refiner.
    pub(super) fn plan(
        &self,
        parts: &Parts,
        request: &GenerationRequest,
        pass: FirstPass<'_>,
        notes: &mut Vec<String>,
    ) -> Result<Option<HandOver>> {
        let FirstPass { work, options, scheduler, first, guided } = pass;
        let start = self.start;
        if !(start > 0.0 && start < 1.0) {
            return Err(invalid("refiner.start", start, "a number over 0 and below 1"));
        }
        let Some(refiner) = &parts.refiner else {
            return Err(invalid("refiner", "wanted", "absent: no refiner was loaded"));
        };
        if request.hires.is_some() {
            return Err(invalid("refiner", "with a second pass", "not together with hires"));
        }
        refiner.budget.check_work(refiner.unet.config(), parts.vae.config(), work)?;
        let schedule = match options.schedule {
            Some(schedule) => schedule,
            None => parts.scheduler.default_schedule(scheduler.sampler())?,
        };
        let own =
            SchedulerOptions { sampler: Some(scheduler.sampler()), schedule: Some(schedule), ..options };
        let own = refiner.scheduler.start(&own)?;
        let at = taken_before(scheduler, &parts.scheduler, start).max(first);
        // From a picture the first model may have had its last step before the run begins.
        let from = taken_before(own.as_ref(), &refiner.scheduler, start).max(at.min(own.steps()));
        if at >= scheduler.steps() || from >= own.steps() {
            notes.push(format!("from {start} on no step is left: the refiner does not take part"));
            return Ok(None);
        }
        if !request.controls.is_empty() {
            notes.push("the refiner is steered by no control picture: they count until it takes over".into());
        }
        let size = [work.width, work.height];
        let (conditions, _) = condition::encoded(refiner, request, guided, size)?;
        Ok(Some(HandOver { parts: Arc::clone(refiner), scheduler: own, conditions, at, from }))
    }
}

/// How many steps begin above the timestep at which the refiner takes over. A step that asks the UNet twice is not cut.
fn taken_before(scheduler: &dyn Scheduler, config: &SchedulerConfig, start: f64) -> usize {
    let train = config.train_timesteps() as f64;
    let cutoff = (train - start * train).round_ties_even();
    let taken = scheduler.timesteps().iter().filter(|timestep| **timestep >= cutoff).count();
    match taken < scheduler.steps() {
        true => taken - taken % scheduler.sampler().evaluations(),
        false => taken,
    }
}

impl HandOver {
    /// Whether the refiner takes the step `next`.
    pub(super) fn is_due(&self, next: usize) -> bool {
        next >= self.at
    }

    /// How many steps a pass has that began with `first`.
    pub(super) fn total(&self, first: usize) -> usize {
        self.at - first + self.scheduler.steps() - self.from
    }
}

impl Generation {
    /// Lets the refiner go on with the latents as they are, and with the noise where it is.
    pub(super) fn hand_over(&mut self, refiner: HandOver) {
        let HandOver { parts, scheduler, conditions, from, .. } = refiner;
        self.before += self.next - self.first;
        (self.parts, self.scheduler, self.conditions) = (parts, scheduler, conditions);
        (self.first, self.next) = (from, from);
        // ControlNets belong to the first model's UNet, and the memory of its layers is of no use to another.
        self.controls = Controls::default();
        self.workspace = None;
        self.last = None;
    }
}
