//! Activations, gates, conversion.

use half::bf16;
use proptest::prelude::*;
use sd_kernels::{Activation, KernelSet};

use crate::reference;
use crate::support::{SEEDS, assert_close, cast, runs, sets, values};

const ALL: [Activation; 5] =
    [Activation::None, Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu];

#[test]
fn activations_equal_the_reference_over_the_whole_range() {
    let x: Vec<f32> = (-3000..3000).map(|i| i as f32 / 100.0).chain([-1e4, 1e4, -88.7, 88.7]).collect();
    for kernels in sets() {
        for activation in ALL {
            let mut y = x.clone();
            kernels.activate(activation, &mut y);
            let expected: Vec<f64> =
                x.iter().map(|x| reference::activation(activation, f64::from(*x))).collect();
            assert_close(kernels, &y, &expected, 2.0);
        }
    }
}

#[test]
fn activations_pass_on_nan_and_infinity() {
    for kernels in sets() {
        for activation in ALL {
            for len in [1, 3, 17, 40] {
                let mut y = vec![f32::NAN; len];
                kernels.activate(activation, &mut y);
                assert!(y.iter().all(|y| y.is_nan()), "{activation:?}");
                let mut y = vec![f32::INFINITY; len];
                kernels.activate(activation, &mut y);
                assert!(y.iter().all(|y| *y == f32::INFINITY), "{activation:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(runs(32))]

    #[test]
    fn unaligned_slices_are_fine(start in 0usize..20, len in 0usize..100, seed in SEEDS) {
        let x = values(seed, start + len);
        let expected: Vec<f64> =
            x[start..].iter().map(|x| reference::activation(Activation::Silu, f64::from(*x))).collect();
        for kernels in sets() {
            let mut y = x.clone();
            kernels.activate(Activation::Silu, &mut y[start..]);
            assert_close(kernels, &y[start..], &expected, 1.0);
            assert_eq!(&y[..start], &x[..start]);
            let mut y = cast::<bf16>(&x);
            kernels.activate(Activation::Silu, &mut y[start..]);
            assert_close(kernels, &y[start..], &expected, 1.0);
        }
    }

    #[test]
    fn gate_equals_the_reference(rows in 1usize..6, width in 1usize..80, kind in 0usize..5, seed in SEEDS) {
        let x = values(seed, rows * 2 * width);
        let mut expected = Vec::new();
        for row in x.chunks_exact(2 * width) {
            for j in 0..width {
                let gate = reference::activation(ALL[kind], f64::from(row[width + j]));
                expected.push(f64::from(row[j]) * gate);
            }
        }
        for kernels in sets() {
            let mut y = vec![0f32; rows * width];
            kernels.gate(ALL[kind], &x, width, &mut y).unwrap();
            assert_close(kernels, &y, &expected, 2.0);
            assert!(kernels.gate(ALL[kind], &x[1..], width, &mut y).is_err());
        }
    }

    #[test]
    fn rounding_to_bf16_is_to_nearest_even(bits in prop::collection::vec(any::<u32>(), 0..70)) {
        check_rounding(&bits);
    }
}

#[test]
fn rounding_to_bf16_minds_the_special_values() {
    // Zeros, NaN with nothing in the bits that stay, infinities, the largest value (which becomes infinity), ties to
    // even both ways, denormal values.
    let bits = [
        0,
        0x7f80_0001,
        0x7fff_ffff,
        0x7fc0_0000,
        0x7f80_0000,
        0x7f7f_ffff,
        0x3f80_8000,
        0x3f81_8000,
        1,
        0x8000,
    ];
    let bits: Vec<u32> = bits.into_iter().flat_map(|bits| [bits, bits | 1 << 31]).collect();
    for start in 0..bits.len() {
        check_rounding(&bits[start..]);
    }
    check_rounding(&bits.repeat(5));
}

fn check_rounding(bits: &[u32]) {
    let x: Vec<f32> = bits.iter().map(|bits| f32::from_bits(*bits)).collect();
    for kernels in sets() {
        let mut y = vec![bf16::ZERO; x.len()];
        kernels.convert(&x, &mut y).unwrap();
        let mut back = vec![0f32; x.len()];
        kernels.convert(&y, &mut back).unwrap();
        for ((x, y), back) in x.iter().zip(&y).zip(&back) {
            let expected = bf16::from_f32(*x);
            // AMX's conversion takes denormal values for zero.
            let flushed = kernels.set() == KernelSet::Amx && x.is_subnormal() && *y == bf16::ZERO;
            let right = y.to_bits() == expected.to_bits() || y.is_nan() && x.is_nan() || flushed;
            assert!(right, "{}: {x:e}: {y:e}", kernels.set());
            assert!(back.to_bits() == y.to_f32().to_bits() || back.is_nan() && y.is_nan());
        }
    }
}
