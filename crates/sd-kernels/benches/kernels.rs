//! Guards the kernels' speed on Stable Diffusion 1.5's shapes. Elements are floating-point operations, so
//! "Gelem/s" reads as GFLOP/s; the norm counts bytes.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sd_kernels::{
    AttentionShape, ConvEpilogue, ConvGeometry, Epilogue, ImageShape, Mask, NormParams, PackedConv2d,
    PackedLinear, Precision, Rows, active,
};

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7919 % 1021) as f32 / 1021.0 - 0.5).collect()
}

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("{} product", active().set()));
    for precision in [Precision::F32, Precision::Bf16] {
        let weight = values(320 * 320 * 9);
        let geometry = ConvGeometry::padded(1);
        let shape = [320, 320, 3, 3];
        let conv =
            PackedConv2d::new(active(), (&weight[..]).into(), shape, None, geometry, precision).unwrap();
        let shape = ImageShape { images: 2, height: 64, width: 64, channels: 320 };
        let input = values(shape.len());
        let mut output = vec![0f32; shape.len()];
        group.throughput(Throughput::Elements((2 * shape.len() * 320 * 9) as u64));
        group.bench_function(format!("conv 3x3 320->320 at 64 x2 {precision:?}"), |b| {
            b.iter(|| conv.forward(&input, shape, &mut output, ConvEpilogue::default()).unwrap());
        });

        let weight = values(2560 * 320);
        let layer = PackedLinear::new(active(), (&weight[..]).into(), 2560, 320, None, precision).unwrap();
        let mut output = vec![0f32; 8192 * 2560];
        group.throughput(Throughput::Elements((2 * output.len() * 320) as u64));
        group.bench_function(format!("linear 8192 rows 320->2560 {precision:?}"), |b| {
            b.iter(|| layer.forward(&input, 8192, &mut output, Epilogue::default()).unwrap());
        });
    }
}

fn attention(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("{} attention", active().set()));
    for keys in [4096, 77] {
        let shape = AttentionShape { batch: 2, heads: 8, queries: 4096, keys, head_dim: 40 };
        let (q, k) = (values(2 * 4096 * 320), values(2 * keys * 320));
        let (q, k) = (Rows::contiguous(&q, 320), Rows::contiguous(&k, 320));
        let mut output = vec![0f32; 2 * 4096 * 320];
        group.throughput(Throughput::Elements((4 * output.len() * keys) as u64));
        group.bench_function(format!("4096x{keys} d40 8 heads x2"), |b| {
            b.iter(|| active().attention(shape, q, k, k, 0.15, Mask::None, &mut output).unwrap());
        });
    }
}

fn norm(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("{} norm", active().set()));
    let (weight, bias) = (vec![1f32; 320], vec![0f32; 320]);
    let params = NormParams { weight: &weight, bias: &bias, eps: 1e-5 };
    let input = values(2 * 4096 * 320);
    let mut output = input.clone();
    group.throughput(Throughput::Bytes(2 * size_of_val(&input[..]) as u64));
    group.bench_function("group norm + SiLU 320 at 64 x2", |b| {
        b.iter(|| {
            active().group_norm(&input, [2, 4096, 320], 32, params, true, &mut output).unwrap();
        });
    });
}

criterion_group! {
    name = kernels;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(3));
    targets = products, attention, norm
}
criterion_main!(kernels);
