//! Attention.

use half::bf16;
use proptest::prelude::*;
use sd_kernels::{AttentionShape, Element, Mask, Rows};

use crate::reference;
use crate::support::{SEEDS, assert_close, cast, runs, sets, values};

/// One head of a (batch, rows, stride) tensor.
fn head(data: &[f32], rows: std::ops::Range<usize>, stride: usize, head: usize, dim: usize) -> Vec<f32> {
    rows.flat_map(|row| data[row * stride + head * dim..][..dim].to_vec()).collect()
}

#[derive(Debug, Clone, Copy)]
enum Masked {
    No,
    Causal,
    Keys,
}

fn check<I: Element, O: Element>(shape: AttentionShape, gap: usize, masked: Masked, seed: u64, slack: f64) {
    let AttentionShape { batch, heads, queries, keys, head_dim } = shape;
    let width = heads * head_dim;
    let stride = width + gap;
    let q: Vec<f32> = values(seed, batch * queries * stride).iter().map(|x| x * 4.0).collect();
    let k = values(seed + 1, batch * keys * stride);
    let v = values(seed + 2, batch * keys * stride);
    let allowed: Vec<bool> = values(seed + 3, batch * keys).iter().map(|x| *x < 0.3).collect();
    let scale = 1.0 / (head_dim as f32).sqrt();
    let mut expected = vec![0f64; batch * queries * width];
    for b in 0..batch {
        for h in 0..heads {
            let one = reference::attention(
                &head(&q, b * queries..(b + 1) * queries, stride, h, head_dim),
                &head(&k, b * keys..(b + 1) * keys, stride, h, head_dim),
                &head(&v, b * keys..(b + 1) * keys, stride, h, head_dim),
                head_dim,
                f64::from(scale),
                |i, j| match masked {
                    Masked::No => true,
                    Masked::Causal => j <= i,
                    Masked::Keys => allowed[b * keys + j],
                },
            );
            for (i, row) in one.chunks_exact(head_dim).enumerate() {
                expected[(b * queries + i) * width + h * head_dim..][..head_dim].copy_from_slice(row);
            }
        }
    }
    let (q, k, v) = (cast::<I>(&q), cast::<I>(&k), cast::<I>(&v));
    // Views that begin one value into their memory.
    let shifted = |data: &[I]| [&[I::from_f32(f32::NAN)], data].concat();
    let (q, k, v) = (shifted(&q), shifted(&k), shifted(&v));
    let rows = |data, rows: usize| Rows { data: &(data as &[I])[1..][..rows * stride - gap], stride };
    let mask = match masked {
        Masked::No => Mask::None,
        Masked::Causal => Mask::Causal,
        Masked::Keys => Mask::Keys(&allowed),
    };
    for kernels in sets() {
        let mut y = vec![O::from_f32(f32::NAN); expected.len()];
        kernels
            .attention(
                shape,
                rows(&q, batch * queries),
                rows(&k, batch * keys),
                rows(&v, batch * keys),
                scale,
                mask,
                &mut y,
            )
            .unwrap();
        assert_close(kernels, &y, &expected, slack);
    }
}

fn shapes() -> impl Strategy<Value = AttentionShape> {
    let queries = prop_oneof![1usize..10, Just(77), 40usize..110];
    let keys = prop_oneof![1usize..10, Just(77), 250usize..300, 500usize..530];
    let dims = prop_oneof![1usize..20, Just(40), Just(64), Just(80), Just(160), 150usize..170];
    (1usize..3, 1usize..4, queries, keys, dims).prop_map(|(batch, heads, queries, keys, head_dim)| {
        AttentionShape { batch, heads, queries, keys, head_dim }
    })
}

fn masks() -> impl Strategy<Value = Masked> {
    prop_oneof![Just(Masked::No), Just(Masked::Causal), Just(Masked::Keys)]
}

proptest! {
    #![proptest_config(runs(24))]

    #[test]
    fn equals_the_reference(shape in shapes(), gap in 0usize..5, mask in masks(), seed in SEEDS) {
        check::<f32, f32>(shape, gap, mask, seed, 10.0);
    }

    #[test]
    fn takes_and_gives_bf16(shape in shapes(), gap in 0usize..5, mask in masks(), seed in SEEDS) {
        check::<bf16, bf16>(shape, gap, mask, seed, 2000.0);
        check::<bf16, f32>(shape, gap, mask, seed, 2000.0);
    }
}

/// One query, 5x7 pixels, 77 tokens, against themselves and each other; masks; a head of no round size.
#[test]
fn the_usual_lengths() {
    for [queries, keys] in [[1, 1], [35, 35], [77, 77], [35, 77], [1, 77]] {
        for (gap, masked) in [Masked::No, Masked::Causal, Masked::Keys].into_iter().enumerate() {
            let shape = AttentionShape { batch: 2, heads: 3, queries, keys, head_dim: 13 };
            check::<f32, f32>(shape, gap, masked, 7, 10.0);
            check::<bf16, bf16>(shape, gap, masked, 7, 2000.0);
        }
    }
}

#[test]
fn a_head_deeper_than_the_kernels_go_at_once() {
    let shape = AttentionShape { batch: 1, heads: 1, queries: 50, keys: 70, head_dim: 512 };
    check::<f32, f32>(shape, 0, Masked::No, 5, 10.0);
}

#[test]
fn a_query_that_may_see_nothing_gives_zeros() {
    let shape = AttentionShape { batch: 1, heads: 1, queries: 2, keys: 3, head_dim: 4 };
    let (q, k, v) = (values(1, 8), values(2, 12), values(3, 12));
    for kernels in sets() {
        let mut y = [f32::NAN; 8];
        let rows = |data| Rows::contiguous(data, 4);
        kernels.attention(shape, rows(&q), rows(&k), rows(&v), 0.5, Mask::Keys(&[false; 3]), &mut y).unwrap();
        assert_eq!(y, [0.0; 8]);
    }
}

#[test]
fn nan_stays_in_its_row_and_infinity_wins() {
    let shape = AttentionShape { batch: 1, heads: 1, queries: 3, keys: 40, head_dim: 4 };
    let (mut q, k, v) = (values(1, 12), values(2, 160), values(3, 160));
    q[5] = f32::NAN;
    for kernels in sets() {
        let mut y = [0f32; 12];
        let rows = |data| Rows::contiguous(data, 4);
        kernels.attention(shape, rows(&q), rows(&k), rows(&v), 0.5, Mask::None, &mut y).unwrap();
        assert!(y[4..8].iter().all(|x| x.is_nan()));
        assert!(y[..4].iter().chain(&y[8..]).all(|x| x.is_finite()));
    }
    // Scores far beyond what exp can hold.
    let q: Vec<f32> = values(1, 12).iter().map(|x| x * 1e4).collect();
    for kernels in sets() {
        let mut y = [0f32; 12];
        let rows = |data| Rows::contiguous(data, 4);
        kernels.attention(shape, rows(&q), rows(&k), rows(&v), 0.5, Mask::None, &mut y).unwrap();
        assert!(y.iter().all(|x| x.is_finite()));
    }
}

#[test]
fn wrong_sizes_are_errors() {
    let shape = AttentionShape { batch: 1, heads: 2, queries: 2, keys: 2, head_dim: 2 };
    let data = [0f32; 8];
    let rows = Rows::contiguous(&data, 4);
    for kernels in sets() {
        let mut y = [0f32; 8];
        let short = Rows::contiguous(&data[..7], 4);
        let narrow = Rows { data: &data, stride: 3 };
        for bad in [short, narrow] {
            assert!(kernels.attention(shape, bad, rows, rows, 1.0, Mask::None, &mut y).is_err());
            assert!(kernels.attention(shape, rows, bad, rows, 1.0, Mask::None, &mut y).is_err());
            assert!(kernels.attention(shape, rows, rows, bad, 1.0, Mask::None, &mut y).is_err());
        }
        assert!(kernels.attention(shape, rows, rows, rows, 1.0, Mask::None, &mut y[..7]).is_err());
        assert!(kernels.attention(shape, rows, rows, rows, 1.0, Mask::Keys(&[true]), &mut y).is_err());
    }
}

/// Without keys there is nothing to attend to: zeros, whatever was there before.
#[test]
fn without_keys_the_answer_is_zero() {
    let shape = AttentionShape { batch: 2, heads: 3, queries: 5, keys: 0, head_dim: 8 };
    let queries = values(1, 2 * 5 * 24);
    let none: Rows<'_, f32> = Rows::contiguous(&[], 24);
    for kernels in sets() {
        let mut output = vec![7f32; queries.len()];
        let rows = Rows::contiguous(&queries, 24);
        kernels.attention(shape, rows, none, none, 1.0, Mask::None, &mut output).unwrap();
        assert!(output.iter().all(|value| *value == 0.0), "{}", kernels.set());
    }
}
