//! Denoising diffusion implicit models.

use candle_core::Tensor;

use super::betas::some_signal;
use super::plan::Plan;
use super::prediction::{Thresholding, clean_sample, divided, scaled};
use super::tables::{self, sigma_of};
use super::{FinalSigmas, Position, PredictionType, Result, Sampler, Schedule, Scheduler, SchedulerConfig};
use crate::rng::NoiseSource;

/// diffusers' `DDIMScheduler` (Song et al. 2020, equations 12 and 16).
///
/// The sample is variance preserving. The timestep before `t` is `t - train / steps` whatever the spacing is, as in
/// the reference. A karras or exponential schedule, which the reference does not have here, visits its levels by
/// their share of signal.
pub(super) struct Ddim {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    /// The share of signal before and after each step.
    alphas: Vec<(f32, f32)>,
    prediction: PredictionType,
    clip: Clip,
    eta: f32,
    position: Position,
}

/// What happens to the clean sample.
enum Clip {
    Never,
    At(f64),
    Dynamic(Thresholding),
}

impl Clip {
    fn apply(&self, clean: Tensor) -> Result<Tensor> {
        match self {
            Self::Never => Ok(clean),
            Self::At(range) => Ok(clean.clamp(-*range, *range)?),
            Self::Dynamic(thresholding) => thresholding.apply(&clean),
        }
    }
}

impl Ddim {
    pub(super) fn new(config: &SchedulerConfig, plan: &Plan) -> Self {
        let (timesteps, alphas) = match plan.schedule {
            Schedule::Normal => training_steps(config, plan),
            _ => spread_steps(config, plan),
        };
        let last = alphas.last().map(|(_, after)| sigma_of(*after));
        let before = alphas.iter().map(|(before, _)| sigma_of(some_signal(*before)));
        Self {
            sigmas: before.chain(last).collect(),
            timesteps,
            prediction: plan.prediction,
            clip: clip(config, plan),
            eta: plan.eta as f32,
            position: Position::new(plan.steps),
            alphas,
        }
    }
}

/// The signal after the last step.
fn final_alpha(config: &SchedulerConfig, plan: &Plan) -> f32 {
    let class = config.class_name.as_deref();
    let default = !(plan.own_defaults && class == Some("PNDMScheduler"));
    if config.set_alpha_to_one.unwrap_or(default) { 1.0 } else { plan.alphas_cumprod[0] }
}

fn training_steps(config: &SchedulerConfig, plan: &Plan) -> (Vec<f64>, Vec<(f32, f32)>) {
    let last = plan.train() - 1;
    let timesteps: Vec<f64> = tables::spaced(plan.spacing, plan.train(), plan.steps, plan.offset)
        .into_iter()
        .map(|t| t.round_ties_even().min(last as f64))
        .collect();
    let stride = plan.train() / plan.steps;
    let alpha_of = |t: usize| match plan.prediction {
        PredictionType::Epsilon => some_signal(plan.alphas_cumprod[t]), // it divides by the signal
        _ => plan.alphas_cumprod[t],
    };
    let alphas = timesteps.iter().map(|t| {
        let t = *t as usize;
        let after = t.checked_sub(stride).map_or_else(|| final_alpha(config, plan), alpha_of);
        (alpha_of(t), after)
    });
    let alphas = alphas.collect();
    (timesteps, alphas)
}

fn spread_steps(config: &SchedulerConfig, plan: &Plan) -> (Vec<f64>, Vec<(f32, f32)>) {
    let levels = plan.levels(FinalSigmas::Zero);
    let alphas: Vec<f32> = levels.sigmas.iter().map(|sigma| 1.0 / (sigma * sigma + 1.0)).collect();
    let mut pairs: Vec<(f32, f32)> = alphas.windows(2).map(|pair| (pair[0], pair[1])).collect();
    if let Some((before, after)) = pairs.last_mut() {
        *after = final_alpha(config, plan).max(*before);
    }
    (levels.timesteps, pairs)
}

fn clip(config: &SchedulerConfig, plan: &Plan) -> Clip {
    // A model whose own class never clips is not clipped because it runs on this sampler for want of its own.
    let clips = ["DDIMScheduler", "DDPMScheduler"];
    let own = config.class_name.as_deref().is_some_and(|class| clips.contains(&class));
    if let Some(thresholding) = thresholding(config) {
        Clip::Dynamic(thresholding)
    } else if config.clip_sample.unwrap_or(own || !plan.own_defaults) {
        Clip::At(config.clip_sample_range.unwrap_or(1.0))
    } else {
        Clip::Never
    }
}

/// Dynamic thresholding, if the configuration wants it.
pub(super) fn thresholding(config: &SchedulerConfig) -> Option<Thresholding> {
    config.thresholding.unwrap_or(false).then(|| Thresholding {
        ratio: config.dynamic_thresholding_ratio.unwrap_or(0.995).clamp(0.0, 1.0),
        max: config.sample_max_value.unwrap_or(1.0),
    })
}

impl Scheduler for Ddim {
    fn sampler(&self) -> Sampler {
        Sampler::Ddim
    }

    fn prediction(&self) -> PredictionType {
        self.prediction
    }

    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn scale_model_input(&self, sample: &Tensor, step: usize) -> Result<Tensor> {
        self.position.check(step)?;
        Ok(sample.clone())
    }

    /// Noise is drawn at every step if eta is above 0, and else never.
    fn step(
        &mut self,
        model_output: &Tensor,
        step: usize,
        sample: &Tensor,
        noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        self.position.check_turn(step)?;
        let (alpha, alpha_next) = self.alphas[step];
        let (signal, spread) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let clean = clean_sample(self.prediction, model_output, sample, (signal, spread))?;
        let epsilon = match self.prediction {
            PredictionType::Epsilon => model_output.clone(),
            PredictionType::Sample => divided(&(sample - scaled(&clean, signal)?)?, spread)?,
            PredictionType::VPrediction => (scaled(model_output, signal)? + scaled(sample, spread)?)?,
        };
        let clean = self.clip.apply(clean)?;

        let variance = (1.0 - alpha_next) / (1.0 - alpha) * (1.0 - alpha / alpha_next);
        let deviation = self.eta * variance.max(0.0).sqrt();
        let direction = (1.0 - alpha_next - deviation * deviation).max(0.0).sqrt();
        let mut next = (scaled(&clean, alpha_next.sqrt())? + scaled(&epsilon, direction)?)?;
        if self.eta > 0.0 {
            let fresh = noise.randn(sample.dims(), sample.device())?;
            next = (next + scaled(&fresh, deviation)?)?;
        }
        self.position.advance(step);
        Ok(next)
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, step: usize) -> Result<Tensor> {
        self.position.check(step)?;
        let (alpha, _) = self.alphas[step];
        Ok((scaled(original, alpha.sqrt())? + scaled(noise, (1.0 - alpha).sqrt())?)?)
    }
}
