//! Noise from a Brownian path for each image, for the samplers whose references take it from there.

use candle_core::{Device, Tensor};

use super::Result;
use crate::rng::{BrownianTree, NoiseSource};

/// The paths of one run.
pub(super) struct PathNoise {
    /// The lowest noise level that is visited and the highest.
    range: (f32, f32),
    /// Once noise was asked for: a path for each image, if the source of the run told its seeds.
    trees: Option<Option<Vec<BrownianTree>>>,
}

impl PathNoise {
    /// For a run over these levels.
    pub(super) fn new(levels: &[f32]) -> Self {
        let visited = || levels.iter().copied().filter(|level| *level > 0.0);
        let range = (visited().fold(f32::INFINITY, f32::min), visited().fold(0.0, f32::max));
        Self { range, trees: None }
    }

    /// The paths' increment from one level down to another, of unit variance; a plain draw where the source cannot tell
    /// the seeds of paths.
    ///
    /// Reference: `BrownianTreeNoiseSampler` of diffusers and k-diffusion, with a seed for each image.
    pub(super) fn between(
        &mut self,
        from: f32,
        to: f32,
        shape: &[usize],
        device: &Device,
        noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        let range = self.range;
        let trees = self.trees.get_or_insert_with(|| {
            let seeds = noise.seeds().filter(|seeds| shape.first() == Some(&seeds.len()))?;
            let values = shape.iter().skip(1).product();
            Some(seeds.into_iter().map(|(kind, seed)| BrownianTree::new(kind, seed, range, values)).collect())
        });
        let Some(trees) = trees else { return Ok(noise.randn(shape, device)?) };
        // Downwards, the path goes back.
        let length = -(to - from).abs().sqrt();
        let values: Vec<f32> =
            trees.iter().flat_map(|tree| tree.increment(to, from)).map(|value| value / length).collect();
        Ok(Tensor::from_vec(values, shape, device)?)
    }

    /// Whether noise comes from paths, once it was asked for.
    pub(super) fn has_paths(&self) -> bool {
        self.trees.as_ref().is_some_and(Option::is_some)
    }
}
