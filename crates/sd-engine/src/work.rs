//! What the queue knows of a job before its turn: little, so that a thousand can wait.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use operations_contract::{Hires, Lora, Operation, Tiling};

use crate::task::{GenerationTask, Source, UpscaleTask};

/// Which model a job needs, how much it has to do, and with whom it can be computed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Work {
    /// Id of the model.
    pub(crate) model: Arc<str>,
    pub(crate) kind: Kind,
    /// Drawing: pixels of all its pictures in all its steps. Enlarging: pixels of all its tiles. 0: not known yet.
    pub(crate) units: f64,
    pub(crate) shape: Shape,
}

/// What a model does for a job: its UNet and the network that enlarges beside it take different times for a pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// Denoising steps.
    Drawing,
    /// A finished picture, tile by tile.
    Enlarging,
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

    /// The work of enlarging a picture; `host` is the model that it is done beside. It goes alone.
    pub(crate) fn enlarging(host: &str, task: &UpscaleTask) -> Self {
        let tile = |side: u32| (side as usize).min(task.options.tiles.side()) as f64;
        let pixels = tile(task.image.width()) * tile(task.image.height());
        Self { units: pixels * f64::from(task.steps), ..Self::unknown_enlarging(host) }
    }

    fn unknown_enlarging(host: &str) -> Self {
        let shape = Shape { width: 0, height: 0, images: 1, company: None };
        Self { model: host.into(), kind: Kind::Enlarging, units: 0.0, shape }
    }

    /// The work of a resolved operation, whose task is made when it is its turn. `host` is the model that it runs on.
    /// That of an upscale is not known before its picture is read.
    pub(crate) fn asked(host: &str, operation: &Operation) -> Self {
        let (common, strength) = match operation {
            Operation::ImageGeneration(request) => (&request.common, 1.0),
            Operation::ImageTransform(request) => (&request.common, request.strength),
            Operation::ImageInpaint(request) => (&request.common, request.strength),
            Operation::ImageUpscale(_) => return Self::unknown_enlarging(host),
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
        let (kind, shape) = (Kind::Drawing, Shape::of(self));
        Work { model: model.into(), kind, units: pixels * steps.max(1.0), shape }
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
