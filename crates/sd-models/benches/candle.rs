//! Prints how long our kernels and candle's take for the same work in f32, in turn: medians of a few runs each.
//!
//! `RAYON_NUM_THREADS=2 cargo bench -p sd-models --bench candle -- [filter]`; `SD_KERNELS` chooses our kernel set. candle
//! lays its work on the same threads.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;

use candle_core::{D, Device, Tensor};
use candle_nn::ops::softmax_last_dim;
use sd_kernels::{
    AttentionShape, ConvEpilogue, ConvGeometry, Epilogue, ImageShape, Kernels, Mask, PackedConv2d,
    PackedLinear, Precision, Rows,
};

const RUNS: usize = 5;

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7919 % 1021) as f32 / 1021.0 - 0.5).collect()
}

fn tensor<S: Into<candle_core::Shape>>(values: &[f32], shape: S) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
}

/// Runs both in turn and prints medians, rates and their ratio.
fn show(filter: &str, name: &str, work: usize, mut ours: impl FnMut(), mut candle: impl FnMut()) {
    if !name.contains(filter) {
        return;
    }
    let (mut own, mut other) = (Vec::new(), Vec::new());
    for run in 0..=RUNS {
        let start = Instant::now();
        ours();
        let middle = Instant::now();
        candle();
        // The first does not count.
        if run > 0 {
            own.push((middle - start).as_secs_f64());
            other.push(middle.elapsed().as_secs_f64());
        }
    }
    let median = |samples: &mut Vec<f64>| {
        samples.sort_by(f64::total_cmp);
        samples[samples.len() / 2]
    };
    let (own, other) = (median(&mut own), median(&mut other));
    let rate = |time: f64| work as f64 / time / 1e9;
    println!(
        "{name:40} ours {:9.2} ms {:6.0} GFLOP/s   candle {:9.2} ms {:6.0} GFLOP/s   ratio {:.2}",
        own * 1e3,
        rate(own),
        other * 1e3,
        rate(other),
        own / other
    );
}

fn linear(filter: &str, kernels: Kernels, [rows, k, n]: [usize; 3]) {
    let (weight, input) = (values(n * k), values(rows * k));
    let layer = PackedLinear::new(kernels, (&weight[..]).into(), n, k, None, Precision::F32).unwrap();
    let mut output = vec![0f32; rows * n];
    let (weight, x) = (tensor(&weight, (n, k)), tensor(&input, (rows, k)));
    show(
        filter,
        &format!("linear {rows} rows {k}->{n}"),
        2 * rows * k * n,
        || layer.forward(&input, rows, &mut output, Epilogue::default()).unwrap(),
        || drop(x.matmul(&weight.t().unwrap()).unwrap()),
    );
}

fn conv(filter: &str, kernels: Kernels, [images, c, o, size, taps]: [usize; 5]) {
    let (weight, input) = (values(o * c * taps * taps), values(images * c * size * size));
    let geometry = ConvGeometry::padded(taps / 2);
    let shape = [o, c, taps, taps];
    let layer =
        PackedConv2d::new(kernels, (&weight[..]).into(), shape, None, geometry, Precision::F32).unwrap();
    let place = ImageShape { images, height: size, width: size, channels: c };
    let mut output = vec![0f32; layer.output_shape(place).unwrap().len()];
    let (weight, x) = (tensor(&weight, (o, c, taps, taps)), tensor(&input, (images, c, size, size)));
    show(
        filter,
        &format!("conv {taps}x{taps} {c}->{o} at {size} x{images}"),
        2 * output.len() * c * taps * taps,
        || layer.forward(&input, place, &mut output, ConvEpilogue::default()).unwrap(),
        || drop(x.conv2d(&weight, taps / 2, 1, 1, 1).unwrap()),
    );
}

fn attention(filter: &str, kernels: Kernels, [batch, heads, queries, keys, dim]: [usize; 5]) {
    let width = heads * dim;
    let (q, k) = (values(batch * queries * width), values(batch * keys * width));
    let mut output = vec![0f32; batch * queries * width];
    let shape = AttentionShape { batch, heads, queries, keys, head_dim: dim };
    let by_head = |values: &[f32], length: usize| {
        tensor(values, (batch, length, heads, dim)).transpose(1, 2).unwrap().contiguous().unwrap()
    };
    let (head_q, head_k) = (by_head(&q, queries), by_head(&k, keys));
    let (own_q, own_k) = (Rows::contiguous(&q, width), Rows::contiguous(&k, width));
    show(
        filter,
        &format!("attention {batch}x{heads} {queries}x{keys} d{dim}"),
        4 * batch * queries * keys * width,
        || kernels.attention(shape, own_q, own_k, own_k, 0.15, Mask::None, &mut output).unwrap(),
        || {
            let scores = (head_q.matmul(&head_k.t().unwrap()).unwrap() * 0.15).unwrap();
            let weights = softmax_last_dim(&scores).unwrap();
            assert_eq!(weights.dim(D::Minus1).unwrap(), keys);
            drop(weights.matmul(&head_k).unwrap());
        },
    );
}

/// Prints how many values of the first rows change when others are multiplied along with them: the law "a batch gives each
/// picture what it gives alone" wants none.
fn law(filter: &str, kernels: Kernels, first: usize, [rows, k, n]: [usize; 3]) {
    let name = format!("law {first} of {rows} rows {k}->{n}");
    if !name.contains(filter) {
        return;
    }
    let (weight, input) = (values(n * k), values(rows * k));
    let layer = PackedLinear::new(kernels, (&weight[..]).into(), n, k, None, Precision::F32).unwrap();
    let ours = |rows: usize| {
        let mut output = vec![0f32; rows * n];
        layer.forward(&input[..rows * k], rows, &mut output, Epilogue::default()).unwrap();
        output
    };
    let weight = tensor(&weight, (n, k)).t().unwrap();
    let candle = |rows: usize| {
        let product = tensor(&input[..rows * k], (rows, k)).matmul(&weight).unwrap();
        product.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let changed = |alone: Vec<f32>, among: Vec<f32>| {
        let changed = alone.iter().zip(&among).filter(|(a, b)| a != b).count();
        100.0 * changed as f64 / alone.len() as f64
    };
    println!(
        "{name:40} values that differ from those of these rows alone: ours {:.0} %, candle {:.0} %",
        changed(ours(first), ours(rows)),
        changed(candle(first), candle(rows)),
    );
}

fn main() {
    // `cargo bench` adds flags of its own.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap_or_default();
    println!("{}\nthreads: {}", sd_kernels::report(), rayon::current_num_threads());
    let kernels = sd_kernels::active();
    for first in [1, 10] {
        law(&filter, kernels, first, [100, 700, 40]);
    }
    for shape in [
        [8192, 320, 320],
        [8192, 1280, 320],
        [4608, 640, 640],
        [2048, 640, 640],
        [1152, 1280, 1280],
        [1152, 1280, 10240],
        [512, 1280, 1280],
        [154, 768, 3072],
    ] {
        linear(&filter, kernels, shape);
    }
    for shape in [
        [2, 320, 320, 64, 3],
        [2, 640, 640, 32, 3],
        [2, 1280, 1280, 16, 3],
        [2, 320, 320, 96, 3],
        [2, 640, 640, 48, 3],
        [2, 1280, 1280, 24, 3],
        [2, 1280, 1280, 32, 3],
        [1, 256, 256, 256, 3],
        [1, 128, 128, 512, 3],
        [2, 960, 320, 64, 1],
    ] {
        conv(&filter, kernels, shape);
    }
    for shape in [
        [2, 8, 1024, 1024, 80],
        [2, 10, 2304, 2304, 64],
        [2, 20, 576, 576, 64],
        [2, 8, 4096, 77, 40],
        [2, 8, 4096, 4096, 40],
    ] {
        attention(&filter, kernels, shape);
    }
}
