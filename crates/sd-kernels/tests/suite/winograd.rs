//! Convolutions by Winograd's products, whether they would pay for the shape or not.

use half::bf16;
use proptest::prelude::*;
use sd_kernels::{
    Activation, ConvEpilogue, ConvGeometry, Element, ImageShape, Kernels, PackedConv2d, Padding, Precision,
};

use crate::reference;
use crate::support::{SEEDS, assert_close, cast, runs, sets, values, weights};

#[derive(Debug, Clone, Copy)]
struct Case {
    shape: ImageShape,
    outputs: usize,
    padding: Padding,
    upsample: bool,
    precision: Precision,
    seed: u64,
}

impl Case {
    fn new([images, height, width, channels]: [usize; 4], outputs: usize) -> Self {
        Self {
            shape: ImageShape { images, height, width, channels },
            outputs,
            padding: Padding::same(1),
            upsample: false,
            precision: Precision::F32,
            seed: 1,
        }
    }

    fn geometry(&self) -> ConvGeometry {
        ConvGeometry { stride: 1, padding: self.padding, upsample: self.upsample }
    }

    fn weight(&self) -> Vec<f32> {
        let channels = self.shape.channels;
        weights(self.seed + 1, self.outputs * channels * 9, channels * 9)
    }

    /// Packed with a bias.
    fn conv(&self, kernels: Kernels) -> PackedConv2d {
        let (weight, bias) = (self.weight(), values(self.seed + 2, self.outputs));
        let shape = [self.outputs, self.shape.channels, 3, 3];
        let bias = Some((&bias[..]).into());
        PackedConv2d::new(kernels, (&weight[..]).into(), shape, bias, self.geometry(), self.precision)
            .unwrap()
            .with_winograd(true)
    }

    fn input(&self) -> Vec<f32> {
        values(self.seed, self.shape.len())
    }
}

fn run<I: Element, O: Element>(conv: &PackedConv2d, shape: ImageShape, input: &[f32]) -> Vec<O> {
    let mut output = vec![O::from_f32(f32::NAN); conv.output_shape(shape).unwrap().len()];
    conv.forward(&cast::<I>(input), shape, &mut output, ConvEpilogue::default()).unwrap();
    output
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Compares with the reference, everything fused.
fn check<I: Element, O: Element>(case: Case) {
    let Case { shape, outputs, seed, .. } = case;
    let (input, bias) = (case.input(), values(seed + 2, outputs));
    let mut expected = None;
    for kernels in sets() {
        let conv = case.conv(kernels);
        let Ok(to) = conv.output_shape(shape) else { return };
        let (per_image, residual) = (values(seed + 3, to.images * outputs), values(seed + 4, to.len()));
        let expected = expected.get_or_insert_with(|| {
            let weight_shape = [outputs, shape.channels, 3, 3];
            let mut sums = reference::conv(&input, shape, &case.weight(), weight_shape, case.geometry(), to);
            for (i, sum) in sums.iter_mut().enumerate() {
                let image = i / (to.height * to.width * outputs);
                *sum += f64::from(bias[i % outputs]) + f64::from(per_image[image * outputs + i % outputs]);
                *sum = reference::activation(Activation::Silu, *sum) + f64::from(residual[i]);
            }
            sums
        });
        let mut found = vec![O::from_f32(f32::NAN); to.len()];
        let residual = cast::<O>(&residual);
        let epilogue = ConvEpilogue {
            per_image: Some(&per_image),
            activation: Activation::Silu,
            residual: Some(&residual),
        };
        conv.forward(&cast::<I>(&input), shape, &mut found, epilogue).unwrap();
        assert_close(kernels, &found, expected, 20.0);
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let shape = (1usize..4, 1usize..24, 1usize..24, prop_oneof![1usize..40, Just(64), Just(129)]);
    let padding = (0usize..4, 0usize..4, 0usize..4, 0usize..4);
    let precision = prop_oneof![Just(Precision::F32), Just(Precision::Bf16)];
    (shape, 1usize..70, padding, any::<bool>(), precision, SEEDS).prop_map(
        |((images, height, width, channels), outputs, padding, upsample, precision, seed)| {
            let (top, bottom, left, right) = padding;
            Case {
                padding: Padding { top, bottom, left, right },
                upsample,
                precision,
                seed,
                ..Case::new([images, height, width, channels], outputs)
            }
        },
    )
}

proptest! {
    #![proptest_config(runs(24))]

    #[test]
    fn equals_the_reference(case in cases()) {
        check::<f32, f32>(case);
    }

    #[test]
    fn takes_and_gives_bf16(case in cases()) {
        check::<bf16, bf16>(case);
        check::<bf16, f32>(case);
    }

    #[test]
    fn a_batch_is_its_images_bit_for_bit(case in cases()) {
        for kernels in sets() {
            let conv = case.conv(kernels);
            if conv.output_shape(case.shape).is_err() {
                return Ok(());
            }
            let input = case.input();
            let together = run::<f32, f32>(&conv, case.shape, &input);
            let alone = ImageShape { images: 1, ..case.shape };
            for (input, together) in
                input.chunks(alone.len()).zip(together.chunks(together.len() / case.shape.images))
            {
                prop_assert_eq!(bits(together), bits(&run::<f32, f32>(&conv, alone, input)));
            }
        }
    }
}

/// Shapes that take the other ways through the driver: many blocks of tiles, which share transformed weights;
/// several steps of depth; several groups of columns.
#[test]
fn every_way_through_the_driver() {
    for case in [
        Case::new([1, 41, 45, 5], 40),
        Case::new([3, 30, 26, 300], 17),
        Case::new([1, 9, 9, 270], 330),
        Case { upsample: true, ..Case::new([1, 23, 22, 20], 100) },
    ] {
        check::<f32, f32>(case);
        check::<bf16, bf16>(Case { precision: Precision::Bf16, ..case });
    }
}

#[test]
fn threads_and_batches_change_nothing() {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let (one, many) = (pool(1), pool(5));
    // The batch shares transformed weights, an image alone does not.
    let case = Case::new([6, 21, 22, 140], 150);
    for kernels in sets() {
        let (conv, input) = (case.conv(kernels), case.input());
        let together = one.install(|| run::<f32, f32>(&conv, case.shape, &input));
        let threaded = many.install(|| run::<f32, f32>(&conv, case.shape, &input));
        assert!(bits(&together) == bits(&threaded), "{}: threads", kernels.set());
        let alone = ImageShape { images: 1, ..case.shape };
        let last = many.install(|| run::<f32, f32>(&conv, alone, &input[5 * alone.len()..]));
        assert!(together.ends_with(&last), "{}: batch", kernels.set());
    }
}

/// A bad pixel spoils what its window reaches, and nothing beyond the tiles that read it.
#[test]
fn nan_and_infinity_stay_in_their_tiles() {
    let case = Case::new([1, 13, 14, 20], 24);
    for kernels in Kernels::available() {
        let conv = case.conv(kernels);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for (row, column) in [(0, 0), (5, 7), (7, 8), (12, 13), (3, 4)] {
                let mut input = case.input();
                input[(row * 14 + column) * 20 + 11] = bad;
                let output = run::<f32, f32>(&conv, case.shape, &input);
                for (pixel, values) in output.chunks(24).enumerate() {
                    let (y, x) = (pixel / 14, pixel % 14);
                    if y.abs_diff(row) <= 1 && x.abs_diff(column) <= 1 {
                        assert!(values.iter().all(|v| !v.is_finite()));
                    }
                    // A tile reads one pixel more on each side.
                    let reads = |first: usize, at: usize| (first..first + 6).contains(&(at + 1));
                    if !(reads(y / 4 * 4, row) && reads(x / 4 * 4, column)) {
                        assert!(values.iter().all(|v| v.is_finite()));
                    }
                }
            }
        }
    }
}

/// The error against exact sums stays within a small multiple of the window's own, at the models' depths.
#[test]
fn errors_stay_near_those_of_the_window() {
    // Values of few bits would have exact products.
    let long = |values: Vec<f32>| values.into_iter().map(|x| x * 0.812_345_7).collect::<Vec<_>>();
    for (channels, upsample) in [(320, false), (1280, false), (2560, false), (320, true)] {
        let shape = ImageShape { images: 1, height: 8, width: 8, channels };
        let input = long(values(1, shape.len()));
        let weight = long(weights(2, 32 * channels * 9, channels * 9));
        let weight_shape = [32, channels, 3, 3];
        let geometry = ConvGeometry { upsample, ..ConvGeometry::padded(1) };
        let side = if upsample { 16 } else { 8 };
        let to = ImageShape { images: 1, height: side, width: side, channels: 32 };
        let exact = reference::conv(&input, shape, &weight, weight_shape, geometry, to);
        for kernels in Kernels::available() {
            let weight = (&weight[..]).into();
            let conv =
                PackedConv2d::new(kernels, weight, weight_shape, None, geometry, Precision::F32).unwrap();
            let error = |winograd| {
                let output = run::<f32, f32>(&conv.with_winograd(winograd), shape, &input);
                let errors = || output.iter().zip(&exact).map(|(x, exact)| (f64::from(*x) - exact).abs());
                let rms = (errors().map(|e| e * e).sum::<f64>() / exact.len() as f64).sqrt();
                (rms, errors().fold(0.0, f64::max))
            };
            let (window, winograd) = (error(false), error(true));
            println!("{} {channels}: rms, max: window {window:?}, Winograd {winograd:?}", kernels.set());
            assert!(winograd.0 < 6.0 * window.0 && winograd.1 < 10.0 * window.1, "{}", kernels.set());
        }
    }
}
