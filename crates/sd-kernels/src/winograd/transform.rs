//! The three transforms of F(4x4, 3x3): of input tiles, of weights, and of the products back to pixels.
//!
//! In one dimension, four outputs of a window of three come from six inputs by six products instead of twelve:
//! both sides are read as polynomials and multiplied by their values at six points. In two dimensions each
//! transform is applied to the columns and then to the rows, so 36 products make a tile of 16 pixels, where the
//! window itself takes 144.
//!
//! Which six points are best for f32 is a matter of measured errors: see [`Plain`] and [`Doubled`].
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

use super::STRIDE;
use crate::element::Lanes;
use crate::gemm::epilogue::{Finish, Target};
use crate::simd::{Kernel, Simd};

/// Outputs of a tile, in one dimension.
pub(super) const OUT: usize = 4;
/// Inputs of a tile, in one dimension.
pub(super) const IN: usize = OUT + 2;

/// At which points the polynomials are evaluated: 0, `A`, `-A`, `B`, `-B` and infinity.
pub(super) trait Points {
    const A: f32;
    const B: f32;
    /// How many of them are needed.
    const COUNT: usize = IN;
}

/// For any image. Every constant of the input's and the output's side is exact in f32, and the rounding errors are
/// half those of the customary 0, +-1, +-2 and infinity.
pub(super) struct Plain;

impl Points for Plain {
    const A: f32 = 0.75;
    const B: f32 = 1.5;
}

/// For a doubled image whose tiles begin with the second of two equal pixels. The values at -1 are
/// `(d4 - A^2 d2) - (d3 - A^2 d1)` with `d1 = d2` and `d3 = d4`: zero, so that 25 of the 36 products are left.
/// The choice of `A` is by measured errors, which are those of the customary points.
pub(super) struct Doubled;

impl Points for Doubled {
    const A: f32 = 0.625;
    const B: f32 = 1.0;
    const COUNT: usize = IN - 1;
}

/// Where the value of point `i` and point `j` lies among those that are needed.
#[inline(always)]
fn place<P: Points>(i: usize, j: usize) -> Option<usize> {
    const LEFT_OUT: usize = 4;
    if P::COUNT == IN {
        Some(i * IN + j)
    } else if i == LEFT_OUT || j == LEFT_OUT {
        None
    } else {
        Some((i - usize::from(i > LEFT_OUT)) * P::COUNT + j - usize::from(j > LEFT_OUT))
    }
}

/// Six inputs to their values at the six points.
#[inline(always)]
fn input_line<S: Simd, P: Points>(s: S, d: [S::V; IN]) -> [S::V; IN] {
    let (a2, b2) = (P::A * P::A, P::B * P::B);
    // The polynomials that vanish at all points but one, with what a pair of points shares taken out.
    let even_a = s.fma(d[2], s.splat(-b2), d[4]);
    let odd_a = s.fma(d[1], s.splat(-b2), d[3]);
    let even_b = s.fma(d[2], s.splat(-a2), d[4]);
    let odd_b = s.fma(d[1], s.splat(-a2), d[3]);
    [
        s.fma(d[0], s.splat(a2 * b2), s.fma(d[2], s.splat(-(a2 + b2)), d[4])),
        s.fma(odd_a, s.splat(P::A), even_a),
        s.fma(odd_a, s.splat(-P::A), even_a),
        s.fma(odd_b, s.splat(P::B), even_b),
        s.fma(odd_b, s.splat(-P::B), even_b),
        s.fma(d[1], s.splat(a2 * b2), s.fma(d[3], s.splat(-(a2 + b2)), d[5])),
    ]
}

/// Three weights to their values at the six points, divided by what [`input_line`] leaves undivided.
#[inline(always)]
fn weight_line<S: Simd, P: Points>(s: S, g: [S::V; 3]) -> [S::V; IN] {
    let (a2, b2) = (P::A * P::A, P::B * P::B);
    let (at_zero, at_a, at_b) = (1.0 / (a2 * b2), 0.5 / (a2 * (a2 - b2)), 0.5 / (b2 * (b2 - a2)));
    let even_a = s.fma(g[2], s.splat(a2 * at_a), s.mul(g[0], s.splat(at_a)));
    let even_b = s.fma(g[2], s.splat(b2 * at_b), s.mul(g[0], s.splat(at_b)));
    [
        s.mul(g[0], s.splat(at_zero)),
        s.fma(g[1], s.splat(P::A * at_a), even_a),
        s.fma(g[1], s.splat(-P::A * at_a), even_a),
        s.fma(g[1], s.splat(P::B * at_b), even_b),
        s.fma(g[1], s.splat(-P::B * at_b), even_b),
        g[2],
    ]
}

/// The products at the six points to four outputs.
#[inline(always)]
fn output_line<S: Simd, P: Points>(s: S, m: [S::V; IN]) -> [S::V; OUT] {
    let (a, b) = (P::A, P::B);
    let (even_a, odd_a) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
    let (even_b, odd_b) = if P::COUNT == IN { (s.add(m[3], m[4]), s.sub(m[3], m[4])) } else { (m[3], m[3]) };
    [
        s.add(s.add(m[0], even_a), even_b),
        s.fma(odd_b, s.splat(b), s.mul(odd_a, s.splat(a))),
        s.fma(even_b, s.splat(b * b), s.mul(even_a, s.splat(a * a))),
        s.add(s.fma(odd_b, s.splat(b * b * b), s.mul(odd_a, s.splat(a * a * a))), m[5]),
    ]
}

/// Zeros to read outside of the image, as many as a step has channels, of either element type.
static ZEROS: [f32; STRIDE] = [0.0; STRIDE];

/// Transforms the inputs of one tile, for some channels.
pub(super) struct TransformInput<T> {
    /// The tile's pixels at the first channel, or null outside of the image.
    pub(super) pixels: [*const T; IN * IN],
    /// Whether the points are those of a doubled image.
    pub(super) doubled: bool,
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
        if self.doubled { self.transform::<S, Doubled>(s) } else { self.transform::<S, Plain>(s) }
    }
}

impl<T: Lanes> TransformInput<T> {
    #[inline(always)]
    fn transform<S: Simd, P: Points>(&self, s: S) {
        let pixels =
            self.pixels.map(|pixel| if pixel.is_null() { ZEROS.as_ptr().cast::<T>() } else { pixel });
        // SAFETY: the driver vouches for the pixels and for the rows; rows have room for whole vectors.
        unsafe {
            let mut c = 0;
            while c + S::LANES <= self.channels {
                self.vector::<S, P>(s, c, |i| T::load(s, pixels[i].add(c)));
                c += S::LANES;
            }
            if c < self.channels {
                self.vector::<S, P>(s, c, |i| T::load_n(s, pixels[i].add(c), self.channels - c));
            }
        }
    }

    #[inline(always)]
    unsafe fn vector<S: Simd, P: Points>(&self, s: S, c: usize, load: impl Fn(usize) -> S::V) {
        let mut lines = [[s.splat(0.0); IN]; IN];
        for j in 0..IN {
            let line = input_line::<S, P>(s, std::array::from_fn(|i| load(i * IN + j)));
            for (lines, value) in lines.iter_mut().zip(line) {
                lines[j] = value;
            }
        }
        for (i, line) in lines.into_iter().enumerate() {
            for (j, value) in input_line::<S, P>(s, line).into_iter().enumerate() {
                if let Some(place) = place::<P>(i, j) {
                    s.store(self.to.add(place * self.to_stride + c), value);
                }
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
    /// Whether the points are those of a doubled image.
    pub(super) doubled: bool,
    /// For each point, rows of `width` columns, one for each channel.
    pub(super) to: *mut f32,
}

impl<W: Lanes> Kernel for TransformWeights<W> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if self.doubled { self.transform::<S, Doubled>(s) } else { self.transform::<S, Plain>(s) }
    }
}

impl<W: Lanes> TransformWeights<W> {
    #[inline(always)]
    fn transform<S: Simd, P: Points>(&self, s: S) {
        let values = self.channels * self.width;
        for at in (0..values).step_by(S::LANES) {
            // SAFETY: the driver vouches for nine taps of `values` weights and room for 36 times as many.
            unsafe {
                let mut lines = [[s.splat(0.0); 3]; IN];
                for j in 0..3 {
                    let tap = |i: usize| W::load(s, self.from.add((i * 3 + j) * self.tap_stride + at));
                    let line = weight_line::<S, P>(s, [tap(0), tap(1), tap(2)]);
                    for (lines, value) in lines.iter_mut().zip(line) {
                        lines[j] = value;
                    }
                }
                for (i, line) in lines.into_iter().enumerate() {
                    for (j, value) in weight_line::<S, P>(s, line).into_iter().enumerate() {
                        if let Some(place) = place::<P>(i, j) {
                            s.store(self.to.add(place * values + at), value);
                        }
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
    /// Whether the points are those of a doubled image.
    pub(super) doubled: bool,
}

impl<O: Lanes> Kernel for TransformOutput<'_, O> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if self.doubled { self.transform::<S, Doubled>(s) } else { self.transform::<S, Plain>(s) }
    }
}

impl<O: Lanes> TransformOutput<'_, O> {
    /// Brings the pixels of the tile to the right near: their lines lie too far apart for the processor to guess.
    #[inline(always)]
    fn prefetch_next<S: Simd>(&self, s: S) {
        let columns = self.columns.clone().step_by(64 / size_of::<O>());
        for (y, x) in (0..OUT).flat_map(|y| (OUT..2 * OUT).map(move |x| (y, x))) {
            let row = (self.pixel + y * self.line + x) * self.target.stride;
            for column in columns.clone() {
                s.prefetch_write(self.target.output.wrapping_add(row + column).cast());
            }
        }
    }

    #[inline(always)]
    fn transform<S: Simd, P: Points>(&self, s: S) {
        self.prefetch_next(s);
        let mut pixels = [0f32; OUT * OUT * PANEL];
        for at in (0..self.columns.len()).step_by(S::LANES) {
            let mut lines = [[s.splat(0.0); IN]; OUT];
            for j in 0..IN {
                let sum = |i: usize| match place::<P>(i, j) {
                    // SAFETY: the driver vouches for the sums of whole vectors at every point.
                    Some(place) => unsafe { s.load(self.sums.add(place * self.point_stride + at)) },
                    None => s.splat(0.0),
                };
                let line = output_line::<S, P>(s, std::array::from_fn(sum));
                for (lines, value) in lines.iter_mut().zip(line) {
                    lines[j] = value;
                }
            }
            for (i, line) in lines.into_iter().enumerate() {
                for (j, value) in output_line::<S, P>(s, line).into_iter().enumerate() {
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
