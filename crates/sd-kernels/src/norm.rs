//! Normalisation: group norm over channels-last images, layer norm and softmax over rows.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

use crate::activation::{Identity, Map, Silu};
use crate::buffer::with_scratch;
use crate::element::{Element, Lanes, typed};
use crate::error::expect;
use crate::parallel::{self, Shared};
use crate::simd::{Kernel, Simd, math};
use crate::{KernelError, Kernels};

/// Pixels whose sums are taken together in f32 before they are added in f64.
const BLOCK: usize = 128;

/// The learnt parts of a normalisation.
#[derive(Debug, Clone, Copy)]
pub struct NormParams<'a> {
    /// Factor for each channel.
    pub weight: &'a [f32],
    /// Summand for each channel.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
}

impl Kernels {
    /// Group norm of `input`, (images, pixels, channels), over `groups` groups of channels, optionally
    /// followed by SiLU.
    ///
    /// Statistics are taken in one pass, shifted by the first pixel so that a large mean costs no precision,
    /// in f32 for blocks of pixels and f64 beyond.
    pub fn group_norm<I: Element, O: Element>(
        self,
        input: &[I],
        [images, pixels, channels]: [usize; 3],
        groups: usize,
        params: NormParams<'_>,
        silu: bool,
        output: &mut [O],
    ) -> Result<(), KernelError> {
        let shape = [images, pixels, channels];
        typed!(O::output(output, None), output, _ => typed!(I::values(input), input => {
            self.group_norm_typed(input, shape, groups, params, silu, output)
        }))
    }

    fn group_norm_typed<I: Element, O: Element>(
        self,
        input: &[I],
        [images, pixels, channels]: [usize; 3],
        groups: usize,
        params: NormParams<'_>,
        silu: bool,
        output: &mut [O],
    ) -> Result<(), KernelError> {
        expect("group norm: input values", images * pixels * channels, input.len())?;
        expect("group norm: output values", input.len(), output.len())?;
        expect("group norm: weight values", channels, params.weight.len())?;
        expect("group norm: bias values", channels, params.bias.len())?;
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(KernelError::Unsupported("group norm: channels must be a multiple of groups"));
        }
        if input.is_empty() {
            return Ok(());
        }
        let blocks = pixels.div_ceil(BLOCK);
        let image_len = pixels * channels;
        with_scratch(images * (blocks + 1) * 2 * channels, |scratch| {
            let (sums, affine) = scratch.split_at_mut(images * blocks * 2 * channels);
            let shared = Shared(sums.as_mut_ptr());
            parallel::for_each(images * blocks, |task| {
                let (image, block) = (task / blocks, task % blocks);
                let image = &input[image * image_len..][..image_len];
                let rows = block * BLOCK * channels..pixels.min((block + 1) * BLOCK) * channels;
                // SAFETY: each task has its own `2 * channels` sums.
                let sums =
                    unsafe { std::slice::from_raw_parts_mut(shared.at(task * 2 * channels), 2 * channels) };
                self.dispatch(Sums { pivot: &image[..channels], rows: &image[rows], sums });
            });
            for image in 0..images {
                let sums = &sums[image * blocks * 2 * channels..][..blocks * 2 * channels];
                let affine = &mut affine[image * 2 * channels..][..2 * channels];
                let pivot = &input[image * image_len..][..channels];
                affine_of(sums, pivot, pixels, groups, params, affine);
            }
            let (affine, shared) = (&*affine, Shared(output.as_mut_ptr()));
            parallel::for_each(images * blocks, |task| {
                let (image, block) = (task / blocks, task % blocks);
                let rows = image * image_len + block * BLOCK * channels
                    ..image * image_len + pixels.min((block + 1) * BLOCK) * channels;
                let affine = &affine[image * 2 * channels..][..2 * channels];
                // SAFETY: the blocks lie within `output` and do not overlap.
                let output = unsafe { std::slice::from_raw_parts_mut(shared.at(rows.start), rows.len()) };
                self.dispatch(Apply { input: &input[rows], affine, silu, output });
            });
        });
        Ok(())
    }

    /// Layer norm of each row of `input`, (rows, channels).
    pub fn layer_norm<I: Element, O: Element>(
        self,
        input: &[I],
        channels: usize,
        params: NormParams<'_>,
        output: &mut [O],
    ) -> Result<(), KernelError> {
        expect("layer norm: output values", input.len(), output.len())?;
        expect("layer norm: weight values", channels, params.weight.len())?;
        expect("layer norm: bias values", channels, params.bias.len())?;
        typed!(O::output(output, None), output, _ => typed!(I::values(input), input => {
            self.rows("layer norm: input values", input, channels, output, |kernels, input, output| {
                kernels.dispatch(LayerNorm { input, params, output });
            })
        }))
    }

    /// Softmax of each row of `input`, (rows, width): `exp(x - max) / sum`.
    pub fn softmax<I: Element, O: Element>(
        self,
        input: &[I],
        width: usize,
        output: &mut [O],
    ) -> Result<(), KernelError> {
        expect("softmax: output values", input.len(), output.len())?;
        typed!(O::output(output, None), output, _ => typed!(I::values(input), input => {
            self.rows("softmax: input values", input, width, output, |kernels, input, output| {
                with_scratch(width, |scratch| {
                    kernels.dispatch(Softmax { input, scratch: &mut scratch[..width], output });
                });
            })
        }))
    }

    /// Runs `work` on each row.
    fn rows<I: Element, O: Element>(
        self,
        what: &'static str,
        input: &[I],
        width: usize,
        output: &mut [O],
        work: impl Fn(Self, &[I], &mut [O]) + Sync,
    ) -> Result<(), KernelError> {
        let rows = input.len().checked_div(width).unwrap_or(0);
        expect(what, rows * width, input.len())?;
        let step = (8192 / width.max(1)).max(1);
        let shared = Shared(output.as_mut_ptr());
        parallel::for_each(rows.div_ceil(step), |task| {
            for row in task * step..rows.min((task + 1) * step) {
                // SAFETY: rows lie within `output` and do not overlap.
                let output = unsafe { std::slice::from_raw_parts_mut(shared.at(row * width), width) };
                work(self, &input[row * width..][..width], output);
            }
        });
        Ok(())
    }
}

/// Turns sums over blocks of pixels into `y = x * a + b` for each channel of an image: `affine` is `a`, then `b`.
fn affine_of<I: Element>(
    sums: &[f32],
    pivot: &[I],
    pixels: usize,
    groups: usize,
    params: NormParams<'_>,
    affine: &mut [f32],
) {
    let channels = pivot.len();
    let size = channels / groups;
    let (factors, summands) = affine.split_at_mut(channels);
    for group in 0..groups {
        let members = group * size..(group + 1) * size;
        // Each channel's mean and squared deviations, then merged: exact enough whatever the channels' means.
        let channel = |c: usize| {
            let (mut sum, mut squares) = (0f64, 0f64);
            for block in sums.chunks_exact(2 * channels) {
                sum += f64::from(block[c]);
                squares += f64::from(block[channels + c]);
            }
            let shift = sum / pixels as f64;
            (f64::from(pivot[c].to_f32()) + shift, squares - sum * shift)
        };
        let mean = members.clone().map(|c| channel(c).0).sum::<f64>() / size as f64;
        let deviations: f64 = members
            .clone()
            .map(|c| {
                let (channel_mean, deviations) = channel(c);
                deviations + (channel_mean - mean).powi(2) * pixels as f64
            })
            .sum();
        // `max` would swallow NaN, which the second summand brings back.
        let variance = (deviations / (size * pixels) as f64).max(0.0) + 0.0 * deviations;
        let scale = 1.0 / (variance + f64::from(params.eps)).sqrt();
        for c in members {
            let factor = scale * f64::from(params.weight[c]);
            factors[c] = factor as f32;
            summands[c] = (f64::from(params.bias[c]) - mean * factor) as f32;
        }
    }
}

/// For each channel, the sum of `x - pivot` over some pixels, then the sum of its square.
struct Sums<'a, I> {
    pivot: &'a [I],
    rows: &'a [I],
    sums: &'a mut [f32],
}

impl<I: Lanes> Kernel for Sums<'_, I> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        /// Vectors of channels that are summed at once.
        const WIDE: usize = 4;
        let channels = self.pivot.len();
        let pixels = self.rows.len() / channels;
        let (sums, squares) = self.sums.split_at_mut(channels);
        let (sums, squares) = (sums.as_mut_ptr(), squares.as_mut_ptr());
        let (pivot, rows) = (self.pivot.as_ptr(), self.rows.as_ptr());
        let mut c = 0;
        // SAFETY: channels `c..c + n` are in range of every row, of the pivot and of both sums.
        unsafe {
            while c + WIDE * S::LANES <= channels {
                let (mut sum, mut square) = ([s.splat(0.0); WIDE], [s.splat(0.0); WIDE]);
                let mut middle = [s.splat(0.0); WIDE];
                for (j, middle) in middle.iter_mut().enumerate() {
                    *middle = I::load(s, pivot.add(c + j * S::LANES));
                }
                for pixel in 0..pixels {
                    let row = rows.add(pixel * channels + c);
                    for j in 0..WIDE {
                        let x = s.sub(I::load(s, row.add(j * S::LANES)), middle[j]);
                        sum[j] = s.add(sum[j], x);
                        square[j] = s.fma(x, x, square[j]);
                    }
                }
                for j in 0..WIDE {
                    s.store(sums.add(c + j * S::LANES), sum[j]);
                    s.store(squares.add(c + j * S::LANES), square[j]);
                }
                c += WIDE * S::LANES;
            }
            while c < channels {
                let n = (channels - c).min(S::LANES);
                let (mut sum, mut square) = (s.splat(0.0), s.splat(0.0));
                let middle = I::load_n(s, pivot.add(c), n);
                for pixel in 0..pixels {
                    let x = s.sub(I::load_n(s, rows.add(pixel * channels + c), n), middle);
                    sum = s.add(sum, x);
                    square = s.fma(x, x, square);
                }
                s.store_n(sums.add(c), sum, n);
                s.store_n(squares.add(c), square, n);
                c += n;
            }
        }
    }
}

/// `x * a + b` for each channel, then perhaps SiLU.
struct Apply<'a, I, O> {
    input: &'a [I],
    affine: &'a [f32],
    silu: bool,
    output: &'a mut [O],
}

impl<I: Lanes, O: Lanes> Kernel for Apply<'_, I, O> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if self.silu { self.apply::<S, Silu>(s) } else { self.apply::<S, Identity>(s) }
    }
}

impl<I: Lanes, O: Lanes> Apply<'_, I, O> {
    #[inline(always)]
    fn apply<S: Simd, A: Map>(self, s: S) {
        let channels = self.affine.len() / 2;
        let (factors, summands) = self.affine.split_at(channels);
        let (factors, summands) = (factors.as_ptr(), summands.as_ptr());
        let whole = channels / S::LANES * S::LANES;
        let n = channels - whole;
        for (from, to) in self.input.chunks_exact(channels).zip(self.output.chunks_exact_mut(channels)) {
            let (from, to) = (from.as_ptr(), to.as_mut_ptr());
            // SAFETY: every access is within a row of `channels` values.
            unsafe {
                let mut c = 0;
                while c < whole {
                    let y = s.fma(I::load(s, from.add(c)), s.load(factors.add(c)), s.load(summands.add(c)));
                    O::store(s, to.add(c), A::map(s, y));
                    c += S::LANES;
                }
                if n > 0 {
                    let (factor, summand) = (s.load_n(factors.add(c), n), s.load_n(summands.add(c), n));
                    let y = s.fma(I::load_n(s, from.add(c), n), factor, summand);
                    O::store_n(s, to.add(c), A::map(s, y), n);
                }
            }
        }
    }
}

struct LayerNorm<'a, I, O> {
    input: &'a [I],
    params: NormParams<'a>,
    output: &'a mut [O],
}

impl<I: Lanes, O: Lanes> Kernel for LayerNorm<'_, I, O> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let len = self.input.len();
        let (from, to) = (self.input.as_ptr(), self.output.as_mut_ptr());
        let (weight, bias) = (self.params.weight.as_ptr(), self.params.bias.as_ptr());
        let whole = len / S::LANES * S::LANES;
        let n = len - whole;
        // SAFETY: `layer_norm` checked that all four are `len` long.
        unsafe {
            let tail = I::load_n(s, from.add(whole), n);
            let mut sum = tail;
            for i in (0..whole).step_by(S::LANES) {
                sum = s.add(sum, I::load(s, from.add(i)));
            }
            let mean = s.sum(sum) / len as f32;
            let middle = s.splat(mean);
            let mut square = s.splat(0.0);
            for i in (0..whole).step_by(S::LANES) {
                let x = s.sub(I::load(s, from.add(i)), middle);
                square = s.fma(x, x, square);
            }
            let mut squares = s.sum(square);
            // The lanes beyond the end are zeros, which would count as deviations.
            for i in whole..len {
                let x = s.sum(I::load_n(s, from.add(i), 1)) - mean;
                squares += x * x;
            }
            let scale = s.splat(1.0 / (squares / len as f32 + self.params.eps).sqrt());
            for i in (0..whole).step_by(S::LANES) {
                let x = s.mul(s.sub(I::load(s, from.add(i)), middle), scale);
                O::store(s, to.add(i), s.fma(x, s.load(weight.add(i)), s.load(bias.add(i))));
            }
            if n > 0 {
                let x = s.mul(s.sub(tail, middle), scale);
                let y = s.fma(x, s.load_n(weight.add(whole), n), s.load_n(bias.add(whole), n));
                O::store_n(s, to.add(whole), y, n);
            }
        }
    }
}

struct Softmax<'a, I, O> {
    input: &'a [I],
    /// The exponentials, as long as the input.
    scratch: &'a mut [f32],
    output: &'a mut [O],
}

impl<I: Lanes, O: Lanes> Kernel for Softmax<'_, I, O> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let len = self.input.len();
        let (from, to, kept) = (self.input.as_ptr(), self.output.as_mut_ptr(), self.scratch.as_mut_ptr());
        let whole = len / S::LANES * S::LANES;
        let n = len - whole;
        // SAFETY: the three slices are `len` long.
        unsafe {
            let mut top = s.splat(f32::NEG_INFINITY);
            for i in (0..whole).step_by(S::LANES) {
                top = s.max(top, I::load(s, from.add(i)));
            }
            let mut greatest = s.greatest(top);
            for i in whole..len {
                greatest = greatest.max(s.sum(I::load_n(s, from.add(i), 1)));
            }
            let shift = s.splat(greatest);
            let mut sum = s.splat(0.0);
            for i in (0..whole).step_by(S::LANES) {
                let e = math::exp(s, s.sub(I::load(s, from.add(i)), shift));
                s.store(kept.add(i), e);
                sum = s.add(sum, e);
            }
            let mut total = s.sum(sum);
            s.store_n(kept.add(whole), math::exp(s, s.sub(I::load_n(s, from.add(whole), n), shift)), n);
            for i in whole..len {
                total += *kept.add(i);
            }
            let scale = s.splat(1.0 / total);
            for i in (0..whole).step_by(S::LANES) {
                O::store(s, to.add(i), s.mul(s.load(kept.add(i)), scale));
            }
            O::store_n(s, to.add(whole), s.mul(s.load_n(kept.add(whole), n), scale), n);
        }
    }
}
