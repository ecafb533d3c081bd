//! Group norm, layer norm, softmax.

use half::bf16;
use proptest::prelude::*;
use sd_kernels::{Activation, Element, NormParams};

use crate::reference;
use crate::support::{SEEDS, assert_close, cast, runs, sets, values};

fn group_norm<I: Element, O: Element>(
    [images, pixels, groups, size]: [usize; 4],
    offset: f32,
    silu: bool,
    seed: u64,
    slack: f64,
) {
    let channels = groups * size;
    let x =
        cast::<I>(&values(seed, images * pixels * channels).iter().map(|x| x + offset).collect::<Vec<_>>());
    let (weight, bias) = (values(seed + 1, channels), values(seed + 2, channels));
    let exact: Vec<f64> = x.iter().map(|x| f64::from(x.to_f32())).collect();
    let mut expected = vec![0f64; exact.len()];
    for image in 0..images {
        for group in 0..groups {
            let members: Vec<usize> = (0..pixels)
                .flat_map(|p| (0..size).map(move |c| (image * pixels + p) * channels + group * size + c))
                .collect();
            reference::normalise(&exact, &members, 1e-5, &mut expected);
        }
    }
    for (i, y) in expected.iter_mut().enumerate() {
        *y = *y * f64::from(weight[i % channels]) + f64::from(bias[i % channels]);
        *y = if silu { reference::activation(Activation::Silu, *y) } else { *y };
    }
    let params = NormParams { weight: &weight, bias: &bias, eps: 1e-5 };
    for kernels in sets() {
        let mut y = vec![O::from_f32(f32::NAN); x.len()];
        kernels.group_norm(&x, [images, pixels, channels], groups, params, silu, &mut y).unwrap();
        assert_close(kernels, &y, &expected, slack);
    }
}

fn layer_norm<I: Element, O: Element>(rows: usize, channels: usize, seed: u64) {
    let x = values(seed, rows * channels);
    let (weight, bias) = (values(seed + 1, channels), values(seed + 2, channels));
    let exact: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
    let mut expected = vec![0f64; exact.len()];
    for row in 0..rows {
        let members: Vec<usize> = (row * channels..(row + 1) * channels).collect();
        reference::normalise(&exact, &members, 1e-5, &mut expected);
    }
    for (i, y) in expected.iter_mut().enumerate() {
        *y = *y * f64::from(weight[i % channels]) + f64::from(bias[i % channels]);
    }
    let params = NormParams { weight: &weight, bias: &bias, eps: 1e-5 };
    for kernels in sets() {
        let mut y = vec![O::from_f32(f32::NAN); x.len()];
        kernels.layer_norm(&cast::<I>(&x), channels, params, &mut y).unwrap();
        assert_close(kernels, &y, &expected, 30.0);
    }
}

fn softmax<I: Element, O: Element>(rows: usize, width: usize, seed: u64) {
    let x: Vec<f32> = values(seed, rows * width).iter().map(|x| x * 16.0).collect();
    let mut expected = Vec::new();
    for row in x.chunks_exact(width) {
        let total: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        expected.extend(row.iter().map(|x| f64::from(*x).exp() / total));
    }
    for kernels in sets() {
        let mut y = vec![O::from_f32(f32::NAN); x.len()];
        kernels.softmax(&cast::<I>(&x), width, &mut y).unwrap();
        assert_close(kernels, &y, &expected, 5.0);
    }
}

proptest! {
    #![proptest_config(runs(32))]

    #[test]
    fn group_norm_equals_the_reference(
        images in 1usize..3,
        pixels in prop_oneof![1usize..40, 120usize..300],
        groups in 1usize..6,
        size in prop_oneof![1usize..12, Just(40)],
        silu: bool,
        seed in SEEDS,
    ) {
        group_norm::<f32, f32>([images, pixels, groups, size], 0.0, silu, seed, 50.0);
        group_norm::<bf16, bf16>([images, pixels, groups, size], 0.0, silu, seed, 50.0);
        group_norm::<f32, bf16>([images, pixels, groups, size], 0.0, silu, seed, 50.0);
    }

    #[test]
    fn layer_norm_equals_the_reference(rows in 1usize..20, channels in 2usize..400, seed in SEEDS) {
        layer_norm::<f32, f32>(rows, channels, seed);
        layer_norm::<bf16, bf16>(rows, channels, seed);
    }

    #[test]
    fn softmax_equals_the_reference(rows in 1usize..20, width in 1usize..400, seed in SEEDS) {
        softmax::<f32, f32>(rows, width, seed);
        softmax::<bf16, bf16>(rows, width, seed);
    }
}

/// One row, 5x7 pixels, 77 tokens; channels that are no multiple of anything.
#[test]
fn the_usual_rows() {
    for (seed, rows) in [1, 35, 77].into_iter().enumerate() {
        let seed = seed as u64;
        group_norm::<f32, f32>([2, rows, 3, 7], 0.0, true, seed, 50.0);
        group_norm::<bf16, bf16>([2, rows, 3, 7], 0.0, true, seed, 50.0);
        layer_norm::<f32, f32>(rows, 101, seed);
        layer_norm::<bf16, bf16>(rows, 101, seed);
        softmax::<f32, f32>(rows, 77, seed);
        softmax::<bf16, bf16>(rows, 77, seed);
    }
}

#[test]
fn a_large_mean_costs_little_precision() {
    // Deviations of about 0.6 around 1000: f32 holds the inputs themselves to 6e-5.
    group_norm::<f32, f32>([1, 300, 4, 10], 1000.0, false, 7, 400.0);
}

#[test]
fn nan_and_infinity_stay_in_their_group() {
    let weight = [1f32; 6];
    let bias = [0f32; 6];
    let params = NormParams { weight: &weight, bias: &bias, eps: 1e-5 };
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = values(3, 2 * 5 * 6);
        x[6 + 2] = bad;
        for kernels in sets() {
            let mut y = vec![0f32; x.len()];
            kernels.group_norm(&x, [2, 5, 6], 3, params, false, &mut y).unwrap();
            for (i, y) in y.iter().enumerate() {
                let in_group = i < 30 && (2..4).contains(&(i % 6));
                assert_eq!(y.is_nan(), in_group, "{}: value {i} is {y}", kernels.set());
            }
            let mut y = vec![0f32; x.len()];
            kernels.layer_norm(&x, 6, params, &mut y).unwrap();
            assert!(y[6..12].iter().all(|y| y.is_nan()) && y[12..].iter().all(|y| y.is_finite()));
            kernels.softmax(&x, 6, &mut y).unwrap();
            assert!(y[6..12].iter().any(|y| y.is_nan()) && y[12..].iter().all(|y| y.is_finite()));
        }
    }
}

#[test]
fn wrong_sizes_are_errors() {
    let (weight, bias) = ([1f32; 6], [0f32; 6]);
    let params = NormParams { weight: &weight, bias: &bias, eps: 1e-5 };
    let x = [0f32; 12];
    for kernels in sets() {
        let mut y = [0f32; 12];
        assert!(kernels.group_norm(&x, [1, 2, 6], 4, params, false, &mut y).is_err());
        assert!(kernels.group_norm(&x, [1, 2, 6], 0, params, false, &mut y).is_err());
        assert!(kernels.group_norm(&x, [1, 3, 6], 3, params, false, &mut y).is_err());
        assert!(kernels.group_norm(&x, [1, 2, 6], 3, params, false, &mut y[..11]).is_err());
        assert!(kernels.layer_norm(&x, 4, params, &mut y).is_err());
        assert!(kernels.softmax(&x, 5, &mut y).is_err());
        assert!(kernels.softmax(&x, 0, &mut y).is_err());
        assert!(kernels.group_norm(&x, [1, 2, 6], 3, params, false, &mut y).is_ok());
    }
}
