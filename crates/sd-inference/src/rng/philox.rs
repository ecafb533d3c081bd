//! The counter-based generator that CUDA programs use.

use super::NoiseSource;

/// Philox 4x32 with ten rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut a, mut b, mut c, mut d], [mut k0, mut k1]) = (counter, key);
    for _ in 0..10 {
        let p0 = u64::from(a) * 0xd251_1f53;
        let p1 = u64::from(c) * 0xcd9e_8d57;
        (a, b, c, d) = ((p1 >> 32) as u32 ^ b ^ k0, p1 as u32, (p0 >> 32) as u32 ^ d ^ k1, p0 as u32);
        k0 = k0.wrapping_add(0x9e37_79b9);
        k1 = k1.wrapping_add(0xbb67_ae85);
    }
    [a, b, c, d]
}

/// What `torch.randn(shape, device="cuda")` gives for a seed, while the draw has no more values than the GPU has
/// threads (that is so for the latent of one image on the cards that front ends assume).
///
/// The seed is the key. Value `i` of draw `n` comes from the counter `(n, 0, i, 0)`: thread `i` is subsequence `i`,
/// and each draw advances every thread by one block. The first two words give one normal by Box-Muller; the other
/// two are not used.
#[derive(Clone)]
pub struct Philox {
    key: [u32; 2],
    draw: u64,
}

impl Philox {
    /// The generator for `seed`.
    pub fn new(seed: u64) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], draw: 0 }
    }
}

impl NoiseSource for Philox {
    fn fill_normal(&mut self, out: &mut [f32]) {
        for (i, value) in (0u64..).zip(out) {
            let counter = [self.draw as u32, (self.draw >> 32) as u32, i as u32, (i >> 32) as u32];
            let [x, y, ..] = philox4x32_10(counter, self.key);
            *value = sine_normal(x, y);
        }
        self.draw += 1;
    }
}

/// The sine half of cuRAND's Box-Muller; a word becomes a uniform in the middle of its 2^-32 interval.
fn sine_normal(x: u32, y: u32) -> f32 {
    const SCALE: f32 = 2.328_306_4e-10;
    const SCALE_TAU: f32 = SCALE * std::f32::consts::TAU;
    let u = f64::from(x) * f64::from(SCALE) + f64::from(SCALE / 2.0);
    let v = f64::from(y) * f64::from(SCALE_TAU) + f64::from(SCALE_TAU / 2.0);
    // The largest words put u a hair above 1, where the logarithm would be positive.
    ((-2.0 * u.min(1.0).ln()).sqrt() * v.sin()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    // Random123's kat_vectors, the three lines "philox4x32 10".
    #[test]
    fn the_published_vectors_hold() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32_10([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    // The first 12 values of torch.randn on CUDA after torch.manual_seed(0), as the stable-diffusion-webui project
    // documents them beside its own imitation of that generator.
    #[test]
    fn a_cuda_generator_is_followed() {
        let wanted = [
            -0.924_662_6,
            -0.425_344_15,
            -2.643_845_7,
            0.145_183_88,
            -0.120_866_47,
            -0.579_725_6,
            -0.622_851_2,
            -0.328_387_1,
            -1.074_542_3,
            -0.363_144_07,
            -1.671_050_7,
            2.265_505,
        ];
        let mut values = [0f32; 12];
        Philox::new(0).fill_normal(&mut values);
        for (value, wanted) in values.iter().zip(wanted) {
            assert!((value - wanted).abs() < 1e-6, "{value} is not {wanted}");
        }
    }

    #[test]
    fn draws_differ_and_seeds_use_all_their_bits() {
        let mut source = Philox::new(1);
        let (mut first, mut second, mut other) = ([0f32; 8], [0f32; 8], [0f32; 8]);
        source.fill_normal(&mut first);
        source.fill_normal(&mut second);
        Philox::new(1 | 1 << 32).fill_normal(&mut other);
        assert_ne!(first, second);
        assert_ne!(first, other);
    }

    #[test]
    fn a_longer_draw_starts_with_the_shorter_one() {
        let (mut short, mut long) = ([0f32; 5], [0f32; 50]);
        Philox::new(9).fill_normal(&mut short);
        Philox::new(9).fill_normal(&mut long);
        assert_eq!(short, long[..5]);
    }

    #[test]
    fn the_extreme_words_stay_finite() {
        for (x, y) in [(0, 0), (u32::MAX, u32::MAX), (0, u32::MAX), (u32::MAX, 0)] {
            assert!(sine_normal(x, y).is_finite());
        }
    }
}
