//! One source for several images.

use super::{NoiseKind, NoiseSource};

/// Draws for a batch whose first dimension counts the images: image `k` gets what its own source gives, so that it is
/// the image which `seed + k` gives alone (diffusers' `randn_tensor` with a list of generators).
pub struct BatchNoise {
    kind: NoiseKind,
    seeds: Vec<u64>,
    sources: Vec<Box<dyn NoiseSource>>,
}

impl BatchNoise {
    /// Sources for `images` images, seeded `seed`, `seed + 1` and so on (wrapping around).
    pub fn new(kind: NoiseKind, seed: u64, images: usize) -> Self {
        let seeds: Vec<u64> = (0..images as u64).map(|k| seed.wrapping_add(k)).collect();
        let sources = seeds.iter().map(|seed| kind.source(*seed)).collect();
        Self { kind, seeds, sources }
    }

    /// How many images a draw must hold.
    pub fn images(&self) -> usize {
        self.sources.len()
    }
}

impl NoiseSource for BatchNoise {
    fn seeds(&self) -> Option<Vec<(NoiseKind, u64)>> {
        Some(self.seeds.iter().map(|seed| (self.kind, *seed)).collect())
    }

    /// # Panics
    /// If `out` cannot be cut into one equal part per image: the shape was not `[images, ..]`.
    fn fill_normal(&mut self, out: &mut [f32]) {
        let images = self.images();
        assert!(images > 0 && out.len().is_multiple_of(images), "{} values for {images} images", out.len());
        let part = out.len() / images;
        if part > 0 {
            self.sources
                .iter_mut()
                .zip(out.chunks_mut(part))
                .for_each(|(source, out)| source.fill_normal(out));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_draws_as_if_it_were_alone() {
        let mut batch = [0f32; 60];
        BatchNoise::new(NoiseKind::TorchCpu, 42, 3).fill_normal(&mut batch);
        for k in 0..3 {
            let mut alone = [0f32; 20];
            NoiseKind::TorchCpu.source(42 + k as u64).fill_normal(&mut alone);
            assert_eq!(batch[20 * k..20 * (k + 1)], alone);
        }
    }
}
