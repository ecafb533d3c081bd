//! What happens to a tile of sums on its way to the output.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

use crate::Activation;
use crate::activation::{Gelu, GeluTanh, Identity, Map, QuickGelu, Silu};
use crate::element::Lanes;
use crate::simd::{Kernel, Simd};

/// Which row of the output a row of the product is.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// The same.
    Same,
    /// Every second pixel of every second line of images: one phase of an upsampling convolution.
    Phase {
        /// Lines and columns of the phase.
        size: [usize; 2],
        /// Lines and columns of the output.
        of: [usize; 2],
        /// The phase's first line and column in the output.
        first: [usize; 2],
    },
}

impl Place {
    #[inline(always)]
    fn row(self, row: usize) -> usize {
        match self {
            Self::Same => row,
            Self::Phase { size, of, first } => {
                let (line, column) = (row / size[1], row % size[1]);
                let (image, line) = (line / size[0], line % size[0]);
                (image * of[0] + 2 * line + first[0]) * of[1] + 2 * column + first[1]
            }
        }
    }
}

/// Where a product goes and what is done to it, apart from its bias.
pub(crate) struct Target<'a, O> {
    /// Row-major, `stride` apart.
    pub(crate) output: *mut O,
    /// Values in a row of the output (and of the residual).
    pub(crate) stride: usize,
    pub(crate) place: Place,
    /// Added to the result; laid out as the output.
    pub(crate) residual: Option<&'a [O]>,
    /// Added before the activation: one row of `stride` values for each `rows` rows of the output.
    pub(crate) per_image: Option<(&'a [f32], usize)>,
    pub(crate) activation: Activation,
    /// Whether the first half of each tile is values and the second gates.
    pub(crate) gated: bool,
}

// SAFETY: the tasks of one product write disjoint parts of `output`.
unsafe impl<O: Sync> Sync for Target<'_, O> {}

/// Writes one tile of sums to the output.
pub(crate) struct Finish<'a, O> {
    pub(crate) target: &'a Target<'a, O>,
    /// The tile, rows `sums_stride` apart.
    pub(crate) sums: *const f32,
    pub(crate) sums_stride: usize,
    /// On a gated layer, how far the gates lie behind the values: half a panel.
    pub(crate) gates: usize,
    /// The tile's rows of the product.
    pub(crate) rows: std::ops::Range<usize>,
    /// The tile's columns of the output.
    pub(crate) columns: std::ops::Range<usize>,
    /// Bias in the order of the sums; readable for as many values as the tile is wide, rounded up to vectors.
    pub(crate) bias: Option<&'a [f32]>,
}

impl<O: Lanes> Kernel for Finish<'_, O> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: the driver vouches for the tile and that its rows and columns lie within the output.
        unsafe {
            match self.target.activation {
                Activation::None => self.finish::<S, Identity>(s),
                Activation::Silu => self.finish::<S, Silu>(s),
                Activation::Gelu => self.finish::<S, Gelu>(s),
                Activation::GeluTanh => self.finish::<S, GeluTanh>(s),
                Activation::QuickGelu => self.finish::<S, QuickGelu>(s),
            }
        }
    }
}

impl<O: Lanes> Finish<'_, O> {
    #[inline(always)]
    unsafe fn finish<S: Simd, A: Map>(self, s: S) {
        let target = self.target;
        let width = self.columns.len();
        for (i, row) in self.rows.clone().enumerate() {
            let sums = self.sums.add(i * self.sums_stride);
            let row = target.place.row(row);
            let at = row * target.stride + self.columns.start;
            let image = match target.per_image {
                Some((values, rows)) => values.as_ptr().add(row / rows * target.stride + self.columns.start),
                None => std::ptr::null(),
            };
            let mut j = 0;
            while j < width {
                let n = (width - j).min(S::LANES);
                let mut v = s.load(sums.add(j));
                if let Some(bias) = self.bias {
                    v = s.add(v, s.load(bias.as_ptr().add(j)));
                }
                if !image.is_null() {
                    v = s.add(v, load::<S, f32>(s, image.add(j), n));
                }
                if target.gated {
                    let mut gate = s.load(sums.add(self.gates + j));
                    if let Some(bias) = self.bias {
                        gate = s.add(gate, s.load(bias.as_ptr().add(self.gates + j)));
                    }
                    v = s.mul(v, A::map(s, gate));
                } else {
                    v = A::map(s, v);
                }
                if let Some(residual) = target.residual {
                    v = s.add(v, load::<S, O>(s, residual.as_ptr().add(at + j), n));
                }
                if n == S::LANES {
                    O::store(s, target.output.add(at + j), v);
                } else {
                    O::store_n(s, target.output.add(at + j), v, n);
                }
                j += S::LANES;
            }
        }
    }
}

/// Loads `n <= LANES` values.
#[inline(always)]
unsafe fn load<S: Simd, T: Lanes>(s: S, p: *const T, n: usize) -> S::V {
    if n == S::LANES { T::load(s, p) } else { T::load_n(s, p, n) }
}
