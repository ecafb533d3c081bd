//! Inputs and comparisons.

use half::bf16;
use proptest::prelude::ProptestConfig;
use sd_kernels::{Element, Kernels};

/// Seeds, with room to add to them.
pub(crate) const SEEDS: std::ops::Range<u64> = 0..1 << 40;

/// Cases of a property: `PROPTEST_CASES` may ask for fewer, where each takes long (valgrind, an emulated processor).
pub(crate) fn runs(number: u32) -> ProptestConfig {
    let wanted = std::env::var("PROPTEST_CASES").ok().and_then(|number| number.parse().ok());
    ProptestConfig::with_cases(number.min(wanted.unwrap_or(number)))
}

/// Every kernel set that can be tested here, or the one that `SD_KERNELS` names.
pub(crate) fn sets() -> Vec<Kernels> {
    if std::env::var_os("SD_KERNELS").is_some() {
        return vec![Kernels::from_env().unwrap()];
    }
    let mut sets = Kernels::available();
    sets.push(Kernels::emulated_amx());
    sets
}

/// `len` repeatable values within -1..1 that bf16 holds exactly.
pub(crate) fn values(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bf16::from_f32((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0).to_f32()
        })
        .collect()
}

/// As [`values`], scaled by a power of two so that a sum of `depth` products stays near 1.
pub(crate) fn weights(seed: u64, len: usize, depth: usize) -> Vec<f32> {
    let scale = 0.5f32.powi((depth as f32).sqrt().log2().ceil() as i32);
    values(seed, len).into_iter().map(|x| x * scale).collect()
}

/// Another element type, or the same.
pub(crate) fn cast<T: Element>(values: &[f32]) -> Vec<T> {
    values.iter().map(|x| T::from_f32(*x)).collect()
}

/// Asserts that values of any element type equal the reference, within f32 rounding times `slack` or the
/// element's own rounding. NaN equals NaN.
#[track_caller]
pub(crate) fn assert_close<T: Element>(kernels: Kernels, found: &[T], expected: &[f64], slack: f64) {
    assert_eq!(found.len(), expected.len());
    let rounding = f64::from(T::from_f32(1.0 + 1.0 / 256.0).to_f32() - 1.0 - 1.0 / 256.0).abs();
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let found = f64::from(found.to_f32());
        if found.is_nan() && expected.is_nan() || found == *expected {
            continue;
        }
        let allowed = slack * 1e-6 * (1.0 + expected.abs()) + expected.abs() * rounding;
        let error = (found - expected).abs();
        assert!(error <= allowed, "{}: value {i}: {found}, expected {expected} +- {allowed}", kernels.set());
    }
}
