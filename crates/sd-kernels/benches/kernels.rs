//! Guards the speed of each kernel on Stable Diffusion 1.5's shapes. Elements of products are floating-point operations,
//! so "Gelem/s" reads as GFLOP/s; the others count the bytes that they read and write.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use half::bf16;
use sd_kernels::{
    Activation, AttentionShape, ConvEpilogue, ConvGeometry, Element, Epilogue, ImageShape, Mask, NormParams,
    PackedConv2d, PackedLinear, Precision, Rows, active,
};

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];
/// Two images of 64x64 pixels, 320 channels.
const SHAPE: ImageShape = ImageShape { images: 2, height: 64, width: 64, channels: 320 };

fn values<T: Element>(len: usize) -> Vec<T> {
    (0..len).map(|i| T::from_f32((i * 7919 % 1021) as f32 / 1021.0 - 0.5)).collect()
}

fn linear(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("{} linear", active().set()));
    let (rows, inputs, outputs) = (8192, 320, 1280);
    let weight = values::<f32>(2 * outputs * inputs);
    let input = values::<f32>(rows * inputs);
    let mut output = vec![0f32; rows * outputs];
    for precision in PRECISIONS {
        let plain = (&weight[..outputs * inputs]).into();
        let layer = PackedLinear::new(active(), plain, outputs, inputs, None, precision).unwrap();
        group.throughput(Throughput::Elements((2 * output.len() * inputs) as u64));
        group.bench_function(format!("320->1280 {precision:?}"), |b| {
            b.iter(|| layer.forward(&input, rows, &mut output, Epilogue::default()).unwrap());
        });
        let layer =
            PackedLinear::gated(active(), (&weight[..]).into(), outputs, inputs, None, precision).unwrap();
        let epilogue = Epilogue { activation: Activation::Gelu, residual: None };
        group.throughput(Throughput::Elements((4 * output.len() * inputs) as u64));
        group.bench_function(format!("320->1280 gated {precision:?}"), |b| {
            b.iter(|| layer.forward(&input, rows, &mut output, epilogue).unwrap());
        });
    }
}

fn conv(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("{} conv", active().set()));
    let input = values::<f32>(SHAPE.len());
    let weight = values::<f32>(320 * 320 * 9);
    let same = ConvGeometry::padded(1);
    for (name, size, geometry) in [
        ("3x3", 3, same),
        ("1x1", 1, ConvGeometry::padded(0)),
        ("3x3 stride 2", 3, ConvGeometry { stride: 2, ..same }),
        ("3x3 upsample", 3, ConvGeometry { upsample: true, ..same }),
    ] {
        for precision in PRECISIONS {
            let shape = [320, 320, size, size];
            let weight = (&weight[..320 * 320 * size * size]).into();
            let conv = PackedConv2d::new(active(), weight, shape, None, geometry, precision).unwrap();
            let mut output = vec![0f32; conv.output_shape(SHAPE).unwrap().len()];
            group.throughput(Throughput::Elements((2 * output.len() * 320 * size * size) as u64));
            group.bench_function(format!("{name} 320->320 {precision:?}"), |b| {
                b.iter(|| conv.forward(&input, SHAPE, &mut output, ConvEpilogue::default()).unwrap());
            });
        }
    }
}

fn attention(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("{} attention", active().set()));
    attend::<f32>(&mut group, "f32");
    attend::<bf16>(&mut group, "bf16");
}

fn attend<T: Element>(group: &mut BenchmarkGroup<'_, WallTime>, kind: &str) {
    for (name, keys) in [("self", 4096), ("cross", 77)] {
        let shape = AttentionShape { batch: 2, heads: 8, queries: 4096, keys, head_dim: 40 };
        let (q, k) = (values::<T>(2 * 4096 * 320), values::<T>(2 * keys * 320));
        let (q, k) = (Rows::contiguous(&q, 320), Rows::contiguous(&k, 320));
        let mut output = vec![T::from_f32(0.0); 2 * 4096 * 320];
        group.throughput(Throughput::Elements((4 * output.len() * keys) as u64));
        group.bench_function(format!("{name} 4096x{keys} d40 {kind}"), |b| {
            b.iter(|| active().attention(shape, q, k, k, 0.15, Mask::None, &mut output).unwrap());
        });
    }
}

fn rows(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("{} rows", active().set()));
    by_rows::<f32>(&mut group, "f32");
    by_rows::<bf16>(&mut group, "bf16");
}

fn by_rows<T: Element>(group: &mut BenchmarkGroup<'_, WallTime>, kind: &str) {
    let kernels = active();
    let (weight, bias) = (vec![1f32; 320], vec![0f32; 320]);
    let params = NormParams { weight: &weight, bias: &bias, eps: 1e-5 };
    let input = values::<T>(SHAPE.len());
    let mut output = input.clone();
    let bytes = size_of_val(&input[..]) as u64;
    group.throughput(Throughput::Bytes(2 * bytes));
    group.bench_function(format!("group norm and SiLU {kind}"), |b| {
        b.iter(|| kernels.group_norm(&input, [2, 4096, 320], 32, params, true, &mut output).unwrap());
    });
    group.bench_function(format!("layer norm {kind}"), |b| {
        b.iter(|| kernels.layer_norm(&input, 320, params, &mut output).unwrap());
    });
    group.bench_function(format!("softmax {kind}"), |b| {
        b.iter(|| kernels.softmax(&input, 320, &mut output).unwrap());
    });
    for activation in [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu] {
        group.bench_function(format!("{activation:?} {kind}"), |b| {
            // In place: values that are activated again and again tend to zero, which takes as long.
            b.iter(|| kernels.activate(activation, &mut output));
        });
    }
    group.throughput(Throughput::Bytes(bytes + bytes / 2));
    group.bench_function(format!("gate {kind}"), |b| {
        let half = input.len() / 2;
        b.iter(|| kernels.gate(Activation::Gelu, &input, 160, &mut output[..half]).unwrap());
    });
}

fn conversion(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("{} conversion", active().set()));
    let (mut wide, mut narrow) = (values::<f32>(SHAPE.len()), values::<bf16>(SHAPE.len()));
    group.throughput(Throughput::Bytes((size_of_val(&wide[..]) + size_of_val(&narrow[..])) as u64));
    group.bench_function("f32 to bf16", |b| b.iter(|| active().convert(&wide, &mut narrow).unwrap()));
    group.bench_function("bf16 to f32", |b| b.iter(|| active().convert(&narrow, &mut wide).unwrap()));
}

criterion_group! {
    name = kernels;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(2));
    targets = linear, conv, attention, rows, conversion
}
criterion_main!(kernels);
