//! What the queue knows of a job before its turn: little, so that a thousand can wait.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use operations_contract::{Hires, Lora, Operation, Tiling};

use crate::task::{GenerationTask, Source};

/// Which model a job needs, how much it has to do, and with whom it can be computed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Work {
    /// Id of the model.
    pub(crate) model: Arc<str>,
    /// Pixels of all its pictures in all its steps.
    pub(crate) units: f64,
    pub(crate) shape: Shape,
}

/// What a job brings into a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Width of the pictures.
    pub width: u32,
    /// Height of the pictures.
    pub height: u32,
    /// How many pictures.
    pub images: u32,
    /// What else must be the same of two that share a forward pass: adapters and tiling. `None`: it goes alone.
    company: Option<u64>,
}

impl Work {
    /// The work of a task.
    pub(crate) fn of(task: &GenerationTask) -> Self {
        let strength = match &task.source {
            Source::Noise => 1.0,
            Source::Image { strength, .. } | Source::Inpaint { strength, .. } => *strength,
        };
        let asked = Asked {
            width: task.width,
            height: task.height,
            steps: task.steps,
            num_images: task.num_images,
            strength,
            loras: &task.loras,
            controlled: !task.control.is_empty(),
            tiling: task.tiling,
            hires: task.hires,
        };
        asked.work(&task.model)
    }

    /// The work of a resolved operation, whose task is made when it is its turn. `host` is the model that it runs on.
    pub(crate) fn asked(host: &str, operation: &Operation) -> Self {
        let (common, strength) = match operation {
            Operation::ImageGeneration(request) => (&request.common, 1.0),
            Operation::ImageTransform(request) => (&request.common, request.strength),
            Operation::ImageInpaint(request) => (&request.common, request.strength),
            // A tile says nothing about how long a step takes: it does not count, and it goes alone.
            Operation::ImageUpscale(_) => {
                let shape = Shape { width: 0, height: 0, images: 1, company: None };
                return Self { model: host.into(), units: 0.0, shape };
            }
        };
        // A resolved operation leaves nothing open.
        let asked = Asked {
            width: common.width.unwrap_or_default(),
            height: common.height.unwrap_or_default(),
            steps: common.steps.unwrap_or_default(),
            num_images: common.num_images,
            strength,
            loras: &common.loras,
            controlled: !common.control.is_empty(),
            tiling: common.tiling,
            hires: common.hires,
        };
        asked.work(host)
    }
}

/// What of a request its work depends on.
struct Asked<'a> {
    width: u32,
    height: u32,
    steps: u32,
    num_images: u32,
    strength: f64,
    loras: &'a [Lora],
    controlled: bool,
    tiling: Tiling,
    hires: Option<Hires>,
}

impl Asked<'_> {
    fn work(&self, model: &str) -> Work {
        let pixels = f64::from(self.width) * f64::from(self.height) * f64::from(self.num_images);
        let second = self.hires.map_or(0.0, |hires| {
            let steps = f64::from(hires.steps.unwrap_or(self.steps)) * hires.strength;
            steps * hires.scale * hires.scale
        });
        let steps = f64::from(self.steps) * self.strength + second;
        Work { model: model.into(), units: pixels * steps.max(1.0), shape: Shape::of(self) }
    }
}

impl Shape {
    fn of(task: &Asked<'_>) -> Self {
        let company = || {
            let mut hasher = DefaultHasher::new();
            (task.tiling.x, task.tiling.y).hash(&mut hasher);
            for lora in task.loras {
                (&lora.name, lora.scale.to_bits()).hash(&mut hasher);
            }
            hasher.finish()
        };
        // What a ControlNet steers takes its steps alone, and a second pass changes its size on the way.
        let alone = task.controlled || task.hires.is_some();
        Self {
            width: task.width,
            height: task.height,
            images: task.num_images,
            company: (!alone).then(company),
        }
    }

    /// Whether both can be in one forward pass.
    pub(crate) fn joins(&self, other: &Self) -> bool {
        let size = |shape: &Self| (shape.width, shape.height);
        size(self) == size(other) && self.company.is_some() && self.company == other.company
    }
}

#[cfg(test)]
impl Shape {
    /// One picture without anything that sets it apart.
    pub(crate) fn plain(width: u32, height: u32) -> Self {
        Self { width, height, images: 1, company: Some(0) }
    }
}
