//! What the queue knows of a job before its turn: little, so that a thousand can wait.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::task::{GenerationTask, Source, Task};

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
    /// What a task asks of the engine; `host` is the model that it runs on.
    pub(crate) fn of_task(task: &Task, host: &str) -> Self {
        match task {
            Task::Generation(task) => Self::of(task),
            // A tile says nothing about how long a step takes: it does not count.
            Task::Upscale(task) => Self {
                model: host.into(),
                units: 0.0,
                shape: Shape { width: task.width, height: task.height, images: 1, company: None },
            },
        }
    }

    pub(crate) fn of(task: &GenerationTask) -> Self {
        let pixels = f64::from(task.width) * f64::from(task.height) * f64::from(task.num_images);
        let strength = match &task.source {
            Source::Noise => 1.0,
            Source::Image { strength, .. } | Source::Inpaint { strength, .. } => *strength,
        };
        let second = task.hires.map_or(0.0, |hires| {
            let steps = f64::from(hires.steps.unwrap_or(task.steps)) * hires.strength;
            steps * hires.scale * hires.scale
        });
        let steps = f64::from(task.steps) * strength + second;
        Self { model: task.model.as_str().into(), units: pixels * steps.max(1.0), shape: Shape::of(task) }
    }
}

impl Shape {
    fn of(task: &GenerationTask) -> Self {
        let company = || {
            let mut hasher = DefaultHasher::new();
            (task.tiling.x, task.tiling.y).hash(&mut hasher);
            for lora in &task.loras {
                (&lora.name, lora.scale.to_bits()).hash(&mut hasher);
            }
            hasher.finish()
        };
        // What a ControlNet steers takes its steps alone, and a second pass changes its size on the way.
        let alone = !task.control.is_empty() || task.hires.is_some();
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
