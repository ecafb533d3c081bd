//! Linear layers.

use half::bf16;
use proptest::prelude::*;
use sd_kernels::{Activation, Element, Epilogue, PackedLinear, Precision, Weights};

use crate::reference;
use crate::support::{SEEDS, assert_close, cast, runs, sets, values, weights};

const ACTIVATIONS: [Activation; 5] =
    [Activation::None, Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu];

#[derive(Debug, Clone)]
struct Case {
    rows: usize,
    inputs: usize,
    outputs: usize,
    bias: bool,
    residual: bool,
    activation: Activation,
    precision: Precision,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let rows = prop_oneof![1usize..8, Just(77), 90usize..130];
    let inputs = prop_oneof![1usize..50, Just(320), 380usize..800];
    let outputs = prop_oneof![1usize..70, Just(320)];
    let precision = prop_oneof![Just(Precision::F32), Just(Precision::Bf16)];
    (rows, inputs, outputs, any::<[bool; 2]>(), 0..5usize, precision, SEEDS).prop_map(
        |(rows, inputs, outputs, [bias, residual], activation, precision, seed)| Case {
            rows,
            inputs,
            outputs,
            bias,
            residual,
            activation: ACTIVATIONS[activation],
            precision,
            seed,
        },
    )
}

fn check<I: Element, O: Element>(case: &Case, gated: bool) {
    let Case { rows, inputs, outputs, activation, .. } = *case;
    let weight_rows = if gated { 2 * outputs } else { outputs };
    let x = values(case.seed, rows * inputs);
    let weight = weights(case.seed + 1, weight_rows * inputs, inputs);
    let bias = case.bias.then(|| values(case.seed + 2, weight_rows));
    let residual = case.residual.then(|| values(case.seed + 3, rows * outputs));
    let sums = reference::linear(&x, &weight, bias.as_deref(), [rows, inputs, weight_rows]);
    let mut expected = Vec::new();
    for row in sums.chunks_exact(weight_rows) {
        for j in 0..outputs {
            expected.push(if gated {
                row[j] * reference::activation(activation, row[outputs + j])
            } else {
                reference::activation(activation, row[j])
            });
        }
    }
    if let Some(residual) = &residual {
        expected.iter_mut().zip(residual).for_each(|(x, r)| *x += f64::from(*r));
    }
    for kernels in sets() {
        let bias = bias.as_deref().map(Weights::from);
        let pack = if gated { PackedLinear::gated } else { PackedLinear::new };
        let layer = pack(kernels, (&weight[..]).into(), outputs, inputs, bias, case.precision).unwrap();
        let residual = residual.as_deref().map(cast::<O>);
        let mut y = vec![O::from_f32(f32::NAN); rows * outputs];
        let epilogue = Epilogue { activation, residual: residual.as_deref() };
        layer.forward(&cast::<I>(&x), rows, &mut y, epilogue).unwrap();
        assert_close(kernels, &y, &expected, 10.0);
    }
}

proptest! {
    #![proptest_config(runs(24))]

    #[test]
    fn equals_the_reference(case in cases()) {
        check::<f32, f32>(&case, false);
    }

    #[test]
    fn gated_equals_the_reference(case in cases()) {
        check::<f32, f32>(&case, true);
    }

    #[test]
    fn takes_and_gives_bf16(case in cases(), gated: bool) {
        check::<bf16, bf16>(&case, gated);
        check::<bf16, f32>(&case, gated);
        check::<f32, bf16>(&case, gated);
    }
}

/// One row, 5x7 pixels, 77 tokens; widths that are no multiple of anything; all element types.
#[test]
fn the_usual_rows() {
    for (seed, rows) in [1, 35, 77].into_iter().enumerate() {
        for [inputs, outputs] in [[7, 5], [33, 17], [101, 51]] {
            for precision in [Precision::F32, Precision::Bf16] {
                let (seed, activation) = (seed as u64, Activation::Gelu);
                let case =
                    Case { rows, inputs, outputs, bias: true, residual: true, activation, precision, seed };
                for gated in [false, true] {
                    check::<f32, f32>(&case, gated);
                    check::<bf16, bf16>(&case, gated);
                }
            }
        }
    }
}

#[test]
fn reads_every_weight_type_at_any_alignment() {
    let weight = values(1, 5 * 3);
    let x = values(2, 3);
    let expected = reference::linear(&x, &weight, None, [1, 3, 5]);
    let f32_bytes: Vec<u8> = weight.iter().flat_map(|w| w.to_le_bytes()).collect();
    let f16_bytes: Vec<u8> = weight.iter().flat_map(|w| half::f16::from_f32(*w).to_le_bytes()).collect();
    let bf16_bytes: Vec<u8> = weight.iter().flat_map(|w| bf16::from_f32(*w).to_le_bytes()).collect();
    for kernels in sets() {
        let shift = |bytes: &[u8]| [&[0u8][..], bytes].concat();
        let shifted = [shift(&f32_bytes), shift(&f16_bytes), shift(&bf16_bytes)];
        for read in [
            Weights::f32_bytes(&shifted[0][1..]),
            Weights::f16_bytes(&shifted[1][1..]),
            Weights::bf16_bytes(&shifted[2][1..]),
        ] {
            let layer = PackedLinear::new(kernels, read, 5, 3, None, Precision::F32).unwrap();
            let mut y = [0f32; 5];
            layer.forward(&x, 1, &mut y, Epilogue::default()).unwrap();
            // f16 keeps more of a value below 1 than bf16 does, so all three are exact up to its denormals.
            assert_close(kernels, &y, &expected, 10.0);
        }
    }
}

#[test]
fn wrong_sizes_are_errors() {
    for kernels in sets() {
        let weight = [0f32; 6];
        assert!(PackedLinear::new(kernels, (&weight[..5]).into(), 3, 2, None, Precision::F32).is_err());
        let layer = PackedLinear::new(kernels, (&weight[..]).into(), 3, 2, None, Precision::F32).unwrap();
        let mut y = [0f32; 3];
        assert!(layer.forward(&[0f32; 3], 1, &mut y, Epilogue::default()).is_err());
        assert!(layer.forward(&[0f32; 4], 2, &mut y, Epilogue::default()).is_err());
        let residual = [0f32; 2];
        let epilogue = Epilogue { residual: Some(&residual[..]), ..Default::default() };
        let error = layer.forward(&[0f32; 2], 1, &mut y, epilogue).unwrap_err();
        assert_eq!(error.to_string(), "linear: residual values: expected 3, found 2");
    }
}

#[test]
fn no_rows_and_no_depth_are_fine() {
    for kernels in sets() {
        let bias = [1f32, 2.0];
        let empty: &[f32] = &[];
        let layer =
            PackedLinear::new(kernels, empty.into(), 2, 0, Some((&bias[..]).into()), Precision::F32).unwrap();
        let mut y = [0f32; 4];
        layer.forward(empty, 2, &mut y, Epilogue::default()).unwrap();
        assert_eq!(y, [1.0, 2.0, 1.0, 2.0]);
        layer.forward::<f32, f32>(empty, 0, &mut [], Epilogue::default()).unwrap();
    }
}

/// Memory is told before a model is loaded by the rule that it is packed by.
#[test]
fn packed_weights_take_the_bytes_that_are_told_before() {
    for kernels in sets() {
        for precision in [Precision::F32, Precision::Bf16] {
            for (rows, depth) in [(1, 1), (4, 36), (16, 32), (33, 31), (320, 77), (770, 33)] {
                let weight = vec![0.5f32; rows * depth];
                let values = vec![0.5f32; rows];
                for bias in [None, Some(Weights::from(&values[..]))] {
                    let told = |gated| kernels.packed_bytes([rows, depth], gated, bias.is_some(), precision);
                    let weight = Weights::from(&weight[..]);
                    let packed = PackedLinear::new(kernels, weight, rows, depth, bias, precision).unwrap();
                    assert_eq!(packed.bytes(), told(false), "{} {rows} x {depth}", kernels.set());
                    if rows % 2 == 0 {
                        let gated =
                            PackedLinear::gated(kernels, weight, rows / 2, depth, bias, precision).unwrap();
                        assert_eq!(gated.bytes(), told(true), "{} gated {rows} x {depth}", kernels.set());
                    }
                }
            }
        }
    }
}
