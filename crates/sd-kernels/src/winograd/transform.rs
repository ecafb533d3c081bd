//! The three transforms of F(4x4, 3x3): of input tiles, of weights, and of the products back to pixels.
//!
//! In one dimension, four outputs of a window of three come from six inputs by six products instead of twelve:
//! both sides are read as polynomials and multiplied by their values at six points. In two dimensions each
//! transform is applied to the columns and then to the rows, so 36 products make a tile of 16 pixels, where the
//! window itself takes 144.
//!
//! The points are 0, +-3/4, +-3/2 and infinity. Every constant of the input's and the output's side is exact in
//! f32, and the rounding errors are half those of the customary 0, +-1, +-2 and infinity.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

use super::STRIDE;
use crate::element::Lanes;
use crate::gemm::epilogue::{Finish, Target};
use crate::simd::{Kernel, Simd};

/// Outputs of a tile, in one dimension.
pub(super) const OUT: usize = 4;
/// Inputs of a tile, and points, in one dimension.
pub(super) const IN: usize = OUT + 2;
/// Products of a tile.
pub(super) const POINTS: usize = IN * IN;

/// The points, squared.
const A: f32 = 0.75;
const B: f32 = 1.5;
const A2: f32 = A * A;
const B2: f32 = B * B;

/// Six inputs to their values at the six points.
#[inline(always)]
fn input_line<S: Simd>(s: S, d: [S::V; IN]) -> [S::V; IN] {
    // The polynomials that vanish at all points but one, with what a pair of points shares taken out.
    let even_a = s.fma(d[2], s.splat(-B2), d[4]);
    let odd_a = s.fma(d[1], s.splat(-B2), d[3]);
    let even_b = s.fma(d[2], s.splat(-A2), d[4]);
    let odd_b = s.fma(d[1], s.splat(-A2), d[3]);
    [
        s.fma(d[0], s.splat(A2 * B2), s.fma(d[2], s.splat(-(A2 + B2)), d[4])),
        s.fma(odd_a, s.splat(A), even_a),
        s.fma(odd_a, s.splat(-A), even_a),
        s.fma(odd_b, s.splat(B), even_b),
        s.fma(odd_b, s.splat(-B), even_b),
        s.fma(d[1], s.splat(A2 * B2), s.fma(d[3], s.splat(-(A2 + B2)), d[5])),
    ]
}

/// Three weights to their values at the six points, divided by what [`input_line`] leaves undivided.
#[inline(always)]
fn weight_line<S: Simd>(s: S, g: [S::V; 3]) -> [S::V; IN] {
    const ZERO: f32 = 1.0 / (A2 * B2);
    const AT_A: f32 = 1.0 / (2.0 * A2 * (A2 - B2));
    const AT_B: f32 = 1.0 / (2.0 * B2 * (B2 - A2));
    let even_a = s.fma(g[2], s.splat(A2 * AT_A), s.mul(g[0], s.splat(AT_A)));
    let even_b = s.fma(g[2], s.splat(B2 * AT_B), s.mul(g[0], s.splat(AT_B)));
    [
        s.mul(g[0], s.splat(ZERO)),
        s.fma(g[1], s.splat(A * AT_A), even_a),
        s.fma(g[1], s.splat(-A * AT_A), even_a),
        s.fma(g[1], s.splat(B * AT_B), even_b),
        s.fma(g[1], s.splat(-B * AT_B), even_b),
        g[2],
    ]
}

/// The products at the six points to four outputs.
#[inline(always)]
fn output_line<S: Simd>(s: S, m: [S::V; IN]) -> [S::V; OUT] {
    let (even_a, odd_a) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
    let (even_b, odd_b) = (s.add(m[3], m[4]), s.sub(m[3], m[4]));
    [
        s.add(s.add(m[0], even_a), even_b),
        s.fma(odd_b, s.splat(B), s.mul(odd_a, s.splat(A))),
        s.fma(even_b, s.splat(B2), s.mul(even_a, s.splat(A2))),
        s.add(s.fma(odd_b, s.splat(B * B2), s.mul(odd_a, s.splat(A * A2))), m[5]),
    ]
}

/// Zeros to read outside of the image, as many as a step has channels, of either element type.
static ZEROS: [f32; STRIDE] = [0.0; STRIDE];

/// Transforms the inputs of one tile, for some channels.
pub(super) struct TransformInput<T> {
    /// The tile's pixels at the first channel, or null outside of the image.
    pub(super) pixels: [*const T; POINTS],
    /// How many channels, at most `STRIDE`.
    pub(super) channels: usize,
    /// For each point, a row of `STRIDE` values.
    pub(super) to: *mut f32,
    /// Distance between the points' rows.
    pub(super) to_stride: usize,
}

impl<T: Lanes> Kernel for TransformInput<T> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let pixels =
            self.pixels.map(|pixel| if pixel.is_null() { ZEROS.as_ptr().cast::<T>() } else { pixel });
        // SAFETY: the driver vouches for the pixels and for the rows; rows have room for whole vectors.
        unsafe {
            let mut c = 0;
            while c + S::LANES <= self.channels {
                self.vector(s, c, |i| T::load(s, pixels[i].add(c)));
                c += S::LANES;
            }
            if c < self.channels {
                self.vector(s, c, |i| T::load_n(s, pixels[i].add(c), self.channels - c));
            }
        }
    }
}

impl<T: Lanes> TransformInput<T> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(&self, s: S, c: usize, load: impl Fn(usize) -> S::V) {
        let mut lines = [[s.splat(0.0); IN]; IN];
        for j in 0..IN {
            let line = input_line(s, std::array::from_fn(|i| load(i * IN + j)));
            for i in 0..IN {
                lines[i][j] = line[i];
            }
        }
        for (i, line) in lines.into_iter().enumerate() {
            for (j, value) in input_line(s, line).into_iter().enumerate() {
                s.store(self.to.add((i * IN + j) * self.to_stride + c), value);
            }
        }
    }
}

/// Transforms the weights of one panel, for some channels.
pub(super) struct TransformWeights<W> {
    /// The panel's weights at the first channel: rows of `width` columns, one for each channel.
    pub(super) from: *const W,
    /// Distance between the window's taps.
    pub(super) tap_stride: usize,
    /// How many channels.
    pub(super) channels: usize,
    /// Columns: one vector or two.
    pub(super) width: usize,
    /// For each point, rows of `width` columns, one for each channel.
    pub(super) to: *mut f32,
}

impl<W: Lanes> Kernel for TransformWeights<W> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let values = self.channels * self.width;
        for at in (0..values).step_by(S::LANES) {
            // SAFETY: the driver vouches for nine taps of `values` weights and room for 36 times as many.
            unsafe {
                let mut lines = [[s.splat(0.0); 3]; IN];
                for j in 0..3 {
                    let tap = |i: usize| W::load(s, self.from.add((i * 3 + j) * self.tap_stride + at));
                    let line = weight_line(s, [tap(0), tap(1), tap(2)]);
                    for i in 0..IN {
                        lines[i][j] = line[i];
                    }
                }
                for (i, line) in lines.into_iter().enumerate() {
                    for (j, value) in weight_line(s, line).into_iter().enumerate() {
                        s.store(self.to.add((i * IN + j) * values + at), value);
                    }
                }
            }
        }
    }
}

/// The widest panel of any set.
const PANEL: usize = 32;

/// Transforms the sums of one tile and panel, and finishes its pixels.
pub(super) struct TransformOutput<'a, O> {
    pub(super) target: &'a Target<'a, O>,
    /// The tile's sums at the first point.
    pub(super) sums: *const f32,
    /// Distance between the points.
    pub(super) point_stride: usize,
    /// The tile's first pixel as a row of the output.
    pub(super) pixel: usize,
    /// Pixels between the lines of an image.
    pub(super) line: usize,
    /// Lines and columns of pixels that lie in the image.
    pub(super) size: [usize; 2],
    /// The panel's columns of the output.
    pub(super) columns: std::ops::Range<usize>,
    pub(super) bias: Option<&'a [f32]>,
}

impl<O: Lanes> Kernel for TransformOutput<'_, O> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut pixels = [0f32; OUT * OUT * PANEL];
        for at in (0..self.columns.len()).step_by(S::LANES) {
            let mut lines = [[s.splat(0.0); IN]; OUT];
            for j in 0..IN {
                // SAFETY: the driver vouches for the sums of whole vectors at every point.
                let sum = |i: usize| unsafe { s.load(self.sums.add((i * IN + j) * self.point_stride + at)) };
                let line = output_line(s, std::array::from_fn(sum));
                for i in 0..OUT {
                    lines[i][j] = line[i];
                }
            }
            for (i, line) in lines.into_iter().enumerate() {
                for (j, value) in output_line(s, line).into_iter().enumerate() {
                    // SAFETY: a panel is at most `PANEL` wide.
                    unsafe { s.store(pixels.as_mut_ptr().add((i * OUT + j) * PANEL + at), value) };
                }
            }
        }
        for (i, line) in pixels.chunks_exact(OUT * PANEL).enumerate().take(self.size[0]) {
            let row = self.pixel + i * self.line;
            Finish {
                target: self.target,
                sums: line.as_ptr(),
                sums_stride: PANEL,
                gates: 0,
                rows: row..row + self.size[1],
                columns: self.columns.clone(),
                bias: self.bias,
            }
            .run(s);
        }
    }
}
