//! The kernels as naively as can be, in f64.

use sd_kernels::{Activation, ConvGeometry, ImageShape};

/// The error function by its series, or its continued fraction where that is faster.
pub(crate) fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let a = x.abs();
    let value = if a > 6.0 {
        1.0
    } else if a < 3.0 {
        let (mut term, mut sum) = (a, a);
        for n in 1..200 {
            term *= -a * a / n as f64;
            sum += term / (2 * n + 1) as f64;
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        let mut tail = 0.0;
        for n in (1..200).rev() {
            tail = n as f64 / 2.0 / (a + tail);
        }
        1.0 - (-a * a).exp() * std::f64::consts::FRAC_2_SQRT_PI / 2.0 / (a + tail)
    };
    value.copysign(x)
}

pub(crate) fn activation(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        _ => unreachable!("an activation without a reference"),
    }
}

/// `input` (rows, inputs) times `weight` (outputs, inputs) transposed, plus bias.
pub(crate) fn linear(
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    [rows, inputs, outputs]: [usize; 3],
) -> Vec<f64> {
    let mut result = Vec::with_capacity(rows * outputs);
    for row in 0..rows {
        for output in 0..outputs {
            let products = (0..inputs)
                .map(|i| f64::from(input[row * inputs + i]) * f64::from(weight[output * inputs + i]));
            result.push(products.sum::<f64>() + bias.map_or(0.0, |bias| f64::from(bias[output])));
        }
    }
    result
}

/// Convolution of channels-last images with weights (outputs, channels, height, width).
pub(crate) fn conv(
    input: &[f32],
    shape: ImageShape,
    weight: &[f32],
    [outputs, channels, kh, kw]: [usize; 4],
    geometry: ConvGeometry,
    to: ImageShape,
) -> Vec<f64> {
    let scale = if geometry.upsample { 2 } else { 1 };
    let pixel = |image: usize, y: isize, x: isize, c: usize| {
        let inside = (0..(shape.height * scale) as isize).contains(&y)
            && (0..(shape.width * scale) as isize).contains(&x);
        if !inside {
            return 0.0;
        }
        let (y, x) = (y as usize / scale, x as usize / scale);
        f64::from(input[((image * shape.height + y) * shape.width + x) * channels + c])
    };
    let mut result = Vec::with_capacity(to.len());
    for image in 0..to.images {
        for oy in 0..to.height {
            for ox in 0..to.width {
                for o in 0..outputs {
                    let mut sum = 0.0;
                    for ky in 0..kh {
                        for kx in 0..kw {
                            let y = (oy * geometry.stride + ky) as isize - geometry.padding.top as isize;
                            let x = (ox * geometry.stride + kx) as isize - geometry.padding.left as isize;
                            for c in 0..channels {
                                let w = weight[((o * channels + c) * kh + ky) * kw + kx];
                                sum += pixel(image, y, x, c) * f64::from(w);
                            }
                        }
                    }
                    result.push(sum);
                }
            }
        }
    }
    result
}

/// Attention of one head: `q` (queries, dim), `k` and `v` (keys, dim); `allowed(query, key)`.
pub(crate) fn attention(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    dim: usize,
    scale: f64,
    allowed: impl Fn(usize, usize) -> bool,
) -> Vec<f64> {
    let keys = k.len() / dim;
    let mut result = Vec::new();
    for (i, q) in q.chunks_exact(dim).enumerate() {
        let scores: Vec<f64> = (0..keys)
            .map(|j| {
                let dot =
                    q.iter().zip(&k[j * dim..]).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>();
                if allowed(i, j) { dot * scale } else { f64::NEG_INFINITY }
            })
            .collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> =
            scores.iter().map(|s| if top == f64::NEG_INFINITY { 0.0 } else { (s - top).exp() }).collect();
        let total: f64 = weights.iter().sum();
        for d in 0..dim {
            let sum: f64 =
                weights.iter().zip(v[d..].iter().step_by(dim)).map(|(w, v)| w * f64::from(*v)).sum();
            result.push(if total == 0.0 { 0.0 } else { sum / total });
        }
    }
    result
}

/// `(values - mean) / sqrt(variance + eps)` over the values at `members`.
pub(crate) fn normalise(values: &[f64], members: &[usize], eps: f64, result: &mut [f64]) {
    let n = members.len() as f64;
    let mean = members.iter().map(|i| values[*i]).sum::<f64>() / n;
    let variance = members.iter().map(|i| (values[*i] - mean).powi(2)).sum::<f64>() / n;
    for i in members {
        result[*i] = (values[*i] - mean) / (variance + eps).sqrt();
    }
}
