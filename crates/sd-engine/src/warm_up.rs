//! One step on a small picture, so that the first job does not pay for what happens but once: pages that are read for the
//! first time, memory that is asked for, and on GPUs kernels that are compiled.

use std::time::{Duration, Instant};

use operations_contract::{ModelCapabilities, OperationKind, RngKind, Tiling};

use crate::generator::{Generator, GeneratorError};
use crate::picture::{Mask, Picture};
use crate::task::{GenerationTask, Source};
use crate::work::Work;

/// Takes the step. Gives what it was and how long it took, without the preparations.
pub(crate) fn run<G: Generator>(
    generator: &mut G,
    model: &ModelCapabilities,
) -> Result<(Work, Duration), GeneratorError> {
    let task = task(model)?;
    let work = Work::of(&task);
    let mut generation = generator.begin(task)?;
    let begun = Instant::now();
    generator.advance(&mut [&mut generation]).into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok((work, begun.elapsed()))
}

/// The smallest picture that the model makes, in one step.
fn task(model: &ModelCapabilities) -> Result<GenerationTask, GeneratorError> {
    let side = model.min_side.next_multiple_of(model.size_multiple.max(1)).min(model.max_side);
    let source = match model.operations.contains(&OperationKind::ImageGeneration) {
        true => Source::Noise,
        // A model that was made for inpainting does nothing else.
        false => Source::Inpaint {
            image: Picture::filled(side, side, [128; 3]),
            mask: Mask::from_luma(side, side, vec![255; side as usize * side as usize])
                .map_err(GeneratorError::failed)?,
            strength: 1.0,
            mask_blur: 0,
            padding_mask_crop: None,
        },
    };
    Ok(GenerationTask {
        model: model.id.clone(),
        prompt: "warm-up".into(),
        negative_prompt: String::new(),
        prompt_2: None,
        negative_prompt_2: None,
        width: side,
        height: side,
        steps: 1,
        guidance_scale: model.default_guidance_scale,
        guidance_rescale: 0.0,
        guidance_interval: None,
        seed: 0,
        sampler: model.default_sampler,
        schedule: model.default_schedule,
        timestep_spacing: None,
        eta: None,
        num_images: 1,
        clip_skip: 0,
        prompt_weighting: false,
        rng: model.rngs.first().copied().unwrap_or(RngKind::TorchCpu),
        loras: Vec::new(),
        control: Vec::new(),
        guess_mode: false,
        tiling: Tiling::default(),
        hires: None,
        refiner: None,
        preview: None,
        source,
    })
}
