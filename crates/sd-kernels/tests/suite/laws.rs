//! Laws that hold for every kernel set: results do not depend on threads, batch or alignment.

use proptest::prelude::*;
use sd_kernels::{
    AttentionShape, ConvEpilogue, ConvGeometry, Epilogue, ImageShape, Kernels, Mask, NormParams,
    PackedConv2d, PackedLinear, Precision, Rows,
};

use crate::support::{SEEDS, runs, sets, values, weights};

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Every kernel on a batch of `images` images of `[height, width]` pixels; channels are fixed per case.
struct Everything {
    kernels: Kernels,
    channels: usize,
    linear: PackedLinear,
    conv: PackedConv2d,
}

impl Everything {
    fn new(kernels: Kernels, channels: usize, precision: Precision, seed: u64) -> Self {
        let weight = weights(seed, channels * channels * 9, channels * 9);
        let small = &weight[..channels * channels];
        let geometry = ConvGeometry::padded(1);
        let shape = [channels, channels, 3, 3];
        Self {
            kernels,
            channels,
            linear: PackedLinear::new(kernels, small.into(), channels, channels, None, precision).unwrap(),
            conv: PackedConv2d::new(kernels, (&weight[..]).into(), shape, None, geometry, precision).unwrap(),
        }
    }

    /// The outputs of all kernels, each (images, pixels * channels).
    fn run(&self, input: &[f32], images: usize, [height, width]: [usize; 2]) -> Vec<Vec<f32>> {
        let (pixels, channels) = (height * width, self.channels);
        let mut outputs = vec![vec![0f32; input.len()]; 5];
        self.linear.forward(input, images * pixels, &mut outputs[0], Epilogue::default()).unwrap();
        let shape = ImageShape { images, height, width, channels };
        self.conv.forward(input, shape, &mut outputs[1], ConvEpilogue::default()).unwrap();
        let shape =
            AttentionShape { batch: images, heads: 1, queries: pixels, keys: pixels, head_dim: channels };
        let rows = Rows::contiguous(input, channels);
        self.kernels.attention(shape, rows, rows, rows, 0.3, Mask::None, &mut outputs[2]).unwrap();
        let (weight, bias) = (vec![1f32; channels], vec![0f32; channels]);
        let params = NormParams { weight: &weight, bias: &bias, eps: 1e-5 };
        self.kernels.group_norm(input, [images, pixels, channels], 1, params, true, &mut outputs[3]).unwrap();
        self.kernels.layer_norm(input, channels, params, &mut outputs[4]).unwrap();
        outputs
    }
}

proptest! {
    #![proptest_config(runs(16))]

    #[test]
    fn a_batch_is_its_images_bit_for_bit(
        size in prop_oneof![Just([1usize, 1usize]), Just([5, 7]), Just([11, 13]), Just([16, 18])],
        channels in prop_oneof![1usize..80, Just(320)],
        bf16_weights: bool,
        seed in SEEDS,
    ) {
        let precision = if bf16_weights { Precision::Bf16 } else { Precision::F32 };
        for kernels in sets() {
            let everything = Everything::new(kernels, channels, precision, seed);
            let len = size[0] * size[1] * channels;
            let input = values(seed + 1, 3 * len);
            let together = everything.run(&input, 3, size);
            for image in 0..3 {
                let alone = everything.run(&input[image * len..(image + 1) * len], 1, size);
                for (together, alone) in together.iter().zip(&alone) {
                    prop_assert_eq!(bits(&together[image * len..(image + 1) * len]), bits(alone));
                }
            }
        }
    }

    #[test]
    fn threads_change_nothing(channels in 1usize..80, seed in SEEDS) {
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (one, many) = (pool(1), pool(5));
        for kernels in sets() {
            let everything = Everything::new(kernels, channels, Precision::F32, seed);
            let input = values(seed + 1, 2 * 12 * 13 * channels);
            let expected = one.install(|| everything.run(&input, 2, [12, 13]));
            let found = many.install(|| everything.run(&input, 2, [12, 13]));
            for (expected, found) in expected.iter().zip(&found) {
                prop_assert_eq!(bits(expected), bits(found));
            }
        }
    }

    #[test]
    fn alignment_changes_nothing(shift in 1usize..16, channels in 1usize..40, seed in SEEDS) {
        for kernels in sets() {
            let everything = Everything::new(kernels, channels, Precision::F32, seed);
            let input = values(seed + 1, 5 * 7 * channels);
            let mut shifted = vec![0f32; shift];
            shifted.extend_from_slice(&input);
            let expected = everything.run(&input, 1, [5, 7]);
            let found = everything.run(&shifted[shift..], 1, [5, 7]);
            for (expected, found) in expected.iter().zip(&found) {
                prop_assert_eq!(bits(expected), bits(found));
            }
        }
    }

    #[test]
    fn nan_and_infinity_reach_what_reads_them_and_nothing_else(
        channels in 1usize..40,
        at in 0usize..35,
        infinite: bool,
        seed in SEEDS,
    ) {
        let bad = if infinite { f32::INFINITY } else { f32::NAN };
        for kernels in sets() {
            let everything = Everything::new(kernels, channels, Precision::F32, seed);
            let mut input = values(seed + 1, 5 * 7 * channels);
            input[at * channels + channels / 2] = bad;
            let outputs = everything.run(&input, 1, [5, 7]);
            let (row, column) = (at / 7, at % 7);
            for pixel in 0..35 {
                let finite = |output: &[f32]| output[pixel * channels..][..channels].iter().all(|x| x.is_finite());
                let near = (pixel / 7).abs_diff(row) <= 1 && (pixel % 7).abs_diff(column) <= 1;
                prop_assert_eq!(finite(&outputs[0]), pixel != at);
                prop_assert_eq!(finite(&outputs[1]), !near);
            }
        }
    }
}
