//! Laws that every kernel keeps on every kernel set, in f32 and in bf16: results do not depend on threads, batch or
//! alignment, and NaN and infinity go where they are read and nowhere else.

use half::bf16;
use proptest::prelude::*;
use sd_kernels::{Element, Precision};

use crate::everything::{Everything, Reach, Run};
use crate::support::{SEEDS, cast, runs, sets, values};

fn bits<T: Element>(values: &[T]) -> Vec<u32> {
    values.iter().map(|x| x.to_f32().to_bits()).collect()
}

fn precisions() -> impl Strategy<Value = Precision> {
    prop_oneof![Just(Precision::F32), Just(Precision::Bf16)]
}

/// Half the channels.
fn halves() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..24, Just(40)]
}

/// One pixel, one short and one long row, 5x7, and more than a block of the kernels.
fn sizes() -> impl Strategy<Value = [usize; 2]> {
    prop_oneof![
        Just([1usize, 1usize]),
        Just([1, 9]),
        Just([1, 77]),
        Just([5, 7]),
        Just([11, 13]),
        Just([16, 18])
    ]
}

#[track_caller]
fn assert_same<T: Element>(what: &str, one: &[Run<T>], other: &[Run<T>]) {
    assert_eq!(one.len(), other.len());
    for (one, other) in one.iter().zip(other) {
        assert!(bits(&one.output) == bits(&other.output), "{what}: {}", one.name);
    }
}

fn batch<T: Element + Default>(size: [usize; 2], half: usize, precision: Precision, seed: u64) {
    for kernels in sets() {
        let everything = Everything::new(kernels, half, precision, seed);
        let len = size[0] * size[1] * 2 * half;
        let input = cast::<T>(&values(seed + 4, 3 * len));
        let together = everything.run(&input, 3, size, 0);
        for image in 0..3 {
            let alone = everything.run(&input[image * len..(image + 1) * len], 1, size, 0);
            for (together, alone) in together.iter().zip(&alone) {
                let len = alone.output.len();
                let part = &together.output[image * len..(image + 1) * len];
                assert!(bits(part) == bits(&alone.output), "{}: {}", kernels.set(), alone.name);
            }
        }
    }
}

fn threads<T: Element + Default>(half: usize, precision: Precision, seed: u64) {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let (one, many) = (pool(1), pool(5));
    for kernels in sets() {
        let everything = Everything::new(kernels, half, precision, seed);
        let input = cast::<T>(&values(seed + 4, 2 * 12 * 13 * 2 * half));
        let expected = one.install(|| everything.run(&input, 2, [12, 13], 0));
        let found = many.install(|| everything.run(&input, 2, [12, 13], 0));
        assert_same(kernels.set().name(), &expected, &found);
    }
}

fn alignment<T: Element + Default>(shifts: [usize; 2], half: usize, precision: Precision, seed: u64) {
    for kernels in sets() {
        let everything = Everything::new(kernels, half, precision, seed);
        let input = cast::<T>(&values(seed + 4, 5 * 7 * 2 * half));
        let mut shifted = vec![T::from_f32(f32::NAN); shifts[0]];
        shifted.extend_from_slice(&input);
        let expected = everything.run(&input, 1, [5, 7], 0);
        let found = everything.run(&shifted[shifts[0]..], 1, [5, 7], shifts[1]);
        assert_same(kernels.set().name(), &expected, &found);
    }
}

/// A bad value in the first of two images.
fn bad_values<T: Element + Default>(half: usize, at: [usize; 2], bad: f32, precision: Precision, seed: u64) {
    let size = [5, 7];
    let channels = 2 * half;
    let channel = seed as usize % channels;
    for kernels in sets() {
        let everything = Everything::new(kernels, half, precision, seed);
        let mut input = cast::<T>(&values(seed + 4, 2 * 5 * 7 * channels));
        input[(at[0] * 7 + at[1]) * channels + channel] = T::from_f32(bad);
        for run in everything.run(&input, 2, size, 0) {
            let pixels = run.size[0] * run.size[1];
            for (i, values) in run.output.chunks_exact(run.channels).enumerate() {
                let (image, pixel) = (i / pixels, [i % pixels / run.size[1], i % run.size[1]]);
                let reached = if image == 0 { run.reach.covers(at, pixel, size) } else { Some(false) };
                let Some(reached) = reached else { continue };
                let told = format!("{} {}: {bad} at {at:?}, pixel {pixel:?}", kernels.set(), run.name);
                let finite = |(_, x): &(usize, &T)| x.to_f32().is_finite();
                if !reached {
                    assert!(values.iter().enumerate().all(|x| finite(&x)), "{told}: it came this far");
                } else if run.reach == Reach::Value {
                    assert!(values.iter().enumerate().all(|x| finite(&x) == (x.0 != channel)), "{told}");
                } else if run.shows.contains(&channel) {
                    assert!(!values.iter().enumerate().all(|x| finite(&x)), "{told}: it got lost");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(runs(12))]

    #[test]
    fn a_batch_is_its_images_bit_for_bit(
        size in sizes(), half in halves(), precision in precisions(), seed in SEEDS,
    ) {
        batch::<f32>(size, half, precision, seed);
        batch::<bf16>(size, half, precision, seed);
    }

    #[test]
    fn threads_change_nothing(half in halves(), precision in precisions(), seed in SEEDS) {
        threads::<f32>(half, precision, seed);
        threads::<bf16>(half, precision, seed);
    }

    #[test]
    fn alignment_changes_nothing(
        shifts in (1usize..16, 1usize..16), half in halves(), precision in precisions(), seed in SEEDS,
    ) {
        alignment::<f32>(shifts.into(), half, precision, seed);
        alignment::<bf16>(shifts.into(), half, precision, seed);
    }

    #[test]
    fn nan_and_infinity_reach_what_reads_them_and_nothing_else(
        half in halves(),
        at in (0usize..5, 0usize..7),
        infinite: bool,
        precision in precisions(),
        seed in SEEDS,
    ) {
        let bad = if infinite { f32::INFINITY } else { f32::NAN };
        bad_values::<f32>(half, at.into(), bad, precision, seed);
        bad_values::<bf16>(half, at.into(), bad, precision, seed);
    }
}

/// A batch of a size and depth at which the products take their blocks in several ways.
#[test]
fn a_large_batch_is_its_images_too() {
    batch::<f32>([11, 13], 160, Precision::F32, 3);
    batch::<bf16>([11, 13], 160, Precision::Bf16, 3);
}
