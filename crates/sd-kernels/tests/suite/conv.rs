//! Convolutions.

use half::bf16;
use proptest::prelude::*;
use sd_kernels::{
    Activation, ConvEpilogue, ConvGeometry, Element, ImageShape, PackedConv2d, Padding, Precision, Weights,
};

use crate::reference;
use crate::support::{SEEDS, assert_close, cast, runs, sets, values, weights};

#[derive(Debug, Clone)]
struct Case {
    shape: ImageShape,
    outputs: usize,
    kernel: [usize; 2],
    geometry: ConvGeometry,
    fused: bool,
    precision: Precision,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let shape = (1usize..3, 1usize..8, 1usize..20, prop_oneof![1usize..40, Just(64), Just(100)]);
    let kernel = prop_oneof![Just([3, 3]), Just([3, 3]), Just([1, 1]), Just([2, 5]), Just([4, 1])];
    let padding = (0usize..3, 0usize..3, 0usize..3, 0usize..3);
    let geometry = (1usize..3, padding, any::<bool>());
    let precision = prop_oneof![Just(Precision::F32), Just(Precision::Bf16)];
    (shape, 1usize..70, kernel, geometry, any::<bool>(), precision, SEEDS).prop_map(
        |((images, height, width, channels), outputs, kernel, geometry, fused, precision, seed)| {
            let (stride, (top, bottom, left, right), upsample) = geometry;
            Case {
                shape: ImageShape { images, height, width, channels },
                outputs,
                kernel,
                geometry: ConvGeometry { stride, padding: Padding { top, bottom, left, right }, upsample },
                fused,
                precision,
                seed,
            }
        },
    )
}

fn check<I: Element, O: Element>(case: &Case) {
    let Case { shape, outputs, kernel: [kh, kw], geometry, seed, .. } = *case;
    let weight_shape = [outputs, shape.channels, kh, kw];
    let x = values(seed, shape.len());
    let weight = weights(seed + 1, weight_shape.iter().product(), shape.channels * kh * kw);
    let bias = values(seed + 2, outputs);
    let activation = if case.fused { Activation::Silu } else { Activation::None };
    let mut expected = None;
    for kernels in sets() {
        let packed_bias = case.fused.then(|| Weights::from(&bias[..]));
        let conv = PackedConv2d::new(
            kernels,
            (&weight[..]).into(),
            weight_shape,
            packed_bias,
            geometry,
            case.precision,
        )
        .unwrap();
        let Ok(to) = conv.output_shape(shape) else {
            // The window does not fit: forward refuses too.
            assert!(conv.forward(&x, shape, &mut [0f32; 0], ConvEpilogue::default()).is_err());
            return;
        };
        let per_image = values(seed + 3, to.images * outputs);
        let residual = values(seed + 4, to.len());
        let expected = expected.get_or_insert_with(|| {
            let mut sums = reference::conv(&x, shape, &weight, weight_shape, geometry, to);
            if case.fused {
                for (i, sum) in sums.iter_mut().enumerate() {
                    let image = i / (to.height * to.width * outputs);
                    *sum +=
                        f64::from(bias[i % outputs]) + f64::from(per_image[image * outputs + i % outputs]);
                    *sum = reference::activation(activation, *sum) + f64::from(residual[i]);
                }
            }
            sums
        });
        let mut y = vec![O::from_f32(f32::NAN); to.len()];
        let residual = cast::<O>(&residual);
        let epilogue = if case.fused {
            ConvEpilogue { per_image: Some(&per_image), activation, residual: Some(&residual) }
        } else {
            ConvEpilogue::default()
        };
        conv.forward(&cast::<I>(&x), shape, &mut y, epilogue).unwrap();
        assert_close(kernels, &y, expected, 20.0);
    }
}

proptest! {
    #![proptest_config(runs(32))]

    #[test]
    fn equals_the_reference(case in cases()) {
        check::<f32, f32>(&case);
    }

    #[test]
    fn takes_and_gives_bf16(case in cases()) {
        check::<bf16, bf16>(&case);
        check::<bf16, f32>(&case);
    }
}

/// The convolutions of the models, small.
#[test]
fn the_usual_geometries() {
    let usual = [
        ([3, 3], ConvGeometry::padded(1)),
        ([1, 1], ConvGeometry::padded(0)),
        ([3, 3], ConvGeometry { stride: 2, ..ConvGeometry::padded(1) }),
        ([3, 3], ConvGeometry { stride: 2, padding: Padding::right_bottom(1), upsample: false }),
        ([3, 3], ConvGeometry { upsample: true, ..ConvGeometry::padded(1) }),
    ];
    for (seed, (kernel, geometry)) in usual.into_iter().enumerate() {
        for (outputs, precision) in [(4, Precision::F32), (33, Precision::F32), (65, Precision::Bf16)] {
            for channels in [13, 36] {
                let shape = ImageShape { images: 2, height: 5, width: 7, channels };
                let case =
                    Case { shape, outputs, kernel, geometry, fused: true, precision, seed: seed as u64 };
                check::<f32, f32>(&case);
                check::<bf16, bf16>(&case);
            }
        }
    }
}

#[test]
fn wrong_sizes_are_errors() {
    for kernels in sets() {
        let weight = [0f32; 2 * 3 * 9];
        let geometry = ConvGeometry { stride: 0, ..ConvGeometry::padded(1) };
        let pack = |geometry, precision| {
            PackedConv2d::new(kernels, (&weight[..]).into(), [2, 3, 3, 3], None, geometry, precision)
        };
        assert!(pack(geometry, Precision::F32).is_err());
        let conv = pack(ConvGeometry::padded(1), Precision::F32).unwrap();
        let shape = ImageShape { images: 1, height: 2, width: 2, channels: 3 };
        let mut y = [0f32; 8];
        assert!(conv.forward(&[0f32; 11], shape, &mut y, ConvEpilogue::default()).is_err());
        assert!(conv.forward(&[0f32; 12], shape, &mut y[..7], ConvEpilogue::default()).is_err());
        let epilogue = ConvEpilogue { per_image: Some(&[0f32; 3][..]), ..Default::default() };
        assert!(conv.forward(&[0f32; 12], shape, &mut y, epilogue).is_err());
        let wrong = ImageShape { channels: 4, ..shape };
        assert!(conv.forward(&[0f32; 16], wrong, &mut y, ConvEpilogue::default()).is_err());
        assert!(conv.forward(&[0f32; 12], shape, &mut y, ConvEpilogue::default()).is_ok());
    }
}
