//! `torch.randn` on a CPU generator.

use std::f32::consts::TAU;

use super::vector_math::{ln, sin_cos};
use super::{Mt19937, NoiseSource};

/// Draws of this many values or more take the block path.
const BLOCK: usize = 16;

/// What `torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))` gives in float32.
///
/// torch has two paths, and a draw takes one by its number of values (`normal_kernel` in ATen's
/// `DistributionTemplates.h`):
/// - fewer than 16: Box-Muller in f64 on pairs of 53-bit uniforms; the second normal of a pair waits in the
///   generator for the next small draw, even if a large one comes between;
/// - 16 or more: 24-bit uniforms fill the tensor, then each block of 16 becomes normals in place, the first eight
///   being radii and the last eight angles. When the count is no multiple of 16, the last 16 values are drawn anew.
///
/// The values are torch's bit for bit, where torch runs on a processor with AVX2 or AVX-512 (its scalar path differs
/// by up to 2e-6).
#[derive(Clone)]
pub struct TorchCpu {
    words: Mt19937,
    waiting: Option<f64>,
}

impl TorchCpu {
    /// The generator for `seed`.
    pub fn new(seed: u64) -> Self {
        Self { words: Mt19937::new(seed), waiting: None }
    }

    /// The next 32 random bits, as `torch.Tensor.random_` would use them.
    pub fn next_u32(&mut self) -> u32 {
        self.words.next_u32()
    }

    /// Uniform in [0, 1) with 24 bits.
    fn uniform_f32(&mut self) -> f32 {
        (self.words.next_u32() & ((1 << 24) - 1)) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// Uniform in [0, 1) with 53 bits.
    fn uniform_f64(&mut self) -> f64 {
        (self.words.next_u64() & ((1 << 53) - 1)) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// ATen's `normal_distribution<double>`.
    fn normal_f64(&mut self) -> f64 {
        if let Some(value) = self.waiting.take() {
            return value;
        }
        let u1 = self.uniform_f64();
        let u2 = self.uniform_f64();
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * u1).sin_cos();
        self.waiting = Some(radius * sin);
        radius * cos
    }

    fn fill_blocks(&mut self, out: &mut [f32]) {
        for value in out.iter_mut() {
            *value = self.uniform_f32();
        }
        let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
        blocks.iter_mut().for_each(box_muller);
        if !rest.is_empty() {
            let Some(tail) = out.last_chunk_mut::<BLOCK>() else { return };
            for value in tail.iter_mut() {
                *value = self.uniform_f32();
            }
            box_muller(tail);
        }
    }
}

impl NoiseSource for TorchCpu {
    fn fill_normal(&mut self, out: &mut [f32]) {
        if out.len() >= BLOCK {
            self.fill_blocks(out);
        } else {
            for value in out {
                *value = self.normal_f64() as f32;
            }
        }
    }
}

/// ATen's `normal_fill_16_AVX2`: sixteen uniforms become sixteen normals.
fn box_muller(block: &mut [f32; BLOCK]) {
    for j in 0..BLOCK / 2 {
        let radius = (-2.0 * ln(1.0 - block[j])).sqrt();
        let (sin, cos) = sin_cos(TAU * block[j + BLOCK / 2]);
        block[j] = radius * cos;
        block[j + BLOCK / 2] = radius * sin;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(source: &mut TorchCpu, count: usize) -> Vec<f32> {
        let mut values = vec![0f32; count];
        source.fill_normal(&mut values);
        values
    }

    // torch 2.15.0: torch.randn(16, generator=torch.Generator("cpu").manual_seed(0))[:4], then torch.randn(3) of the
    // same generator.
    #[test]
    fn both_paths_follow_torch() {
        let mut source = TorchCpu::new(0);
        let large = draw(&mut source, 16);
        let small = draw(&mut source, 3);
        let wanted = [-1.1258398, -1.1523602, -0.2505786, -0.4338788, -0.719_257_6, -0.4033435, -0.5966353];
        for (value, wanted) in large[..4].iter().chain(&small).zip(wanted) {
            assert!((value - wanted).abs() < 1e-6, "{value} is not {wanted}");
        }
    }

    #[test]
    fn a_waiting_value_survives_a_large_draw() {
        let pair = draw(&mut TorchCpu::new(42), 2);
        let mut source = TorchCpu::new(42);
        let first = draw(&mut source, 1);
        draw(&mut source, 16);
        assert_eq!([first[0], draw(&mut source, 1)[0]], pair[..]);
    }

    #[test]
    fn values_look_normal_and_are_finite() {
        let values = draw(&mut TorchCpu::new(3), 100_003);
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
        let square = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(values.iter().all(|v| v.is_finite()));
        assert!(mean.abs() < 0.02 && (square - 1.0).abs() < 0.02, "mean {mean}, square {square}");
    }
}
