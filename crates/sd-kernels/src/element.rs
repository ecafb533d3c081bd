//! The element types of activations: f32 and bf16.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

use half::bf16;

use crate::KernelError;
use crate::error::expect;
use crate::simd::Simd;

/// An activation's element type: `f32` or [`bf16`]. Arithmetic is f32 for both; bf16 is rounded to nearest
/// even when stored.
#[allow(private_bounds)]
pub trait Element: Lanes {
    /// The value in f32.
    fn to_f32(self) -> f32;
    /// The nearest value to `x`.
    fn from_f32(x: f32) -> Self;
}

impl Element for f32 {
    fn to_f32(self) -> f32 {
        self
    }
    fn from_f32(x: f32) -> Self {
        x
    }
}

impl Element for bf16 {
    fn to_f32(self) -> f32 {
        self.to_f32()
    }
    fn from_f32(x: f32) -> Self {
        Self::from_f32(x)
    }
}

/// A slice of either element type. The public generic functions turn their arguments into these and hand on to
/// functions of this crate, so that kernels are compiled once, here, and not in every crate that calls them.
#[derive(Clone, Copy)]
pub(crate) enum Values<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

/// An output of either element type, with what is added to it.
pub(crate) enum Output<'a> {
    F32(&'a mut [f32], Option<&'a [f32]>),
    Bf16(&'a mut [bf16], Option<&'a [bf16]>),
}

/// Runs an expression with the slices of a [`Values`] or an [`Output`] bound to names.
macro_rules! typed {
    ($values:expr, $input:ident => $body:expr) => {
        match $values {
            crate::element::Values::F32($input) => $body,
            crate::element::Values::Bf16($input) => $body,
        }
    };
    ($output:expr, $values:pat, $residual:pat => $body:expr) => {
        match $output {
            crate::element::Output::F32($values, $residual) => $body,
            crate::element::Output::Bf16($values, $residual) => $body,
        }
    };
}
pub(crate) use typed;

impl Values<'_> {
    pub(crate) fn len(self) -> usize {
        typed!(self, values => values.len())
    }
}

impl Output<'_> {
    /// Values of the output.
    pub(crate) fn len(&self) -> usize {
        typed!(self, values, _ => values.len())
    }

    /// Checks that the residual, if any, is as long as the output.
    pub(crate) fn check(&self, what: &'static str) -> Result<(), KernelError> {
        typed!(self, values, residual => match residual {
            Some(residual) => expect(what, values.len(), residual.len()),
            None => Ok(()),
        })
    }
}

/// How an element type goes in and out of vectors of f32. Seals [`Element`].
///
/// # Safety
/// Of the functions: the pointer is valid for `S::LANES`, or `n`, elements of any alignment.
pub(crate) trait Lanes: Copy + Send + Sync + 'static {
    /// Whether this is f32 itself.
    const WIDE: bool;
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V;
    unsafe fn load_n<S: Simd>(s: S, p: *const Self, n: usize) -> S::V;
    unsafe fn store<S: Simd>(s: S, p: *mut Self, v: S::V);
    unsafe fn store_n<S: Simd>(s: S, p: *mut Self, v: S::V, n: usize);
    fn values(values: &[Self]) -> Values<'_>;
    fn output<'a>(values: &'a mut [Self], residual: Option<&'a [Self]>) -> Output<'a>;
    /// Copies `n` values, rounded to bf16.
    #[inline(always)]
    unsafe fn round<S: Simd>(s: S, from: *const Self, to: *mut bf16, n: usize) {
        let mut i = 0;
        while i < n {
            let count = S::LANES.min(n - i);
            s.store_bf16_n(to.add(i), Self::load_n(s, from.add(i), count), count);
            i += count;
        }
    }
    /// Copies 32 values, rounded to bf16: a line of 64 bytes.
    #[inline(always)]
    unsafe fn round_line<S: Simd>(s: S, from: *const Self, to: *mut bf16) {
        for i in (0..32).step_by(2 * S::LANES) {
            let values = [Self::load(s, from.add(i)), Self::load(s, from.add(i + S::LANES))];
            s.store_bf16_twice(to.add(i), values);
        }
    }
}

impl Lanes for f32 {
    const WIDE: bool = true;
    fn values(values: &[Self]) -> Values<'_> {
        Values::F32(values)
    }
    fn output<'a>(values: &'a mut [Self], residual: Option<&'a [Self]>) -> Output<'a> {
        Output::F32(values, residual)
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V {
        s.load(p)
    }
    #[inline(always)]
    unsafe fn load_n<S: Simd>(s: S, p: *const Self, n: usize) -> S::V {
        s.load_n(p, n)
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(s: S, p: *mut Self, v: S::V) {
        s.store(p, v);
    }
    #[inline(always)]
    unsafe fn store_n<S: Simd>(s: S, p: *mut Self, v: S::V, n: usize) {
        s.store_n(p, v, n);
    }
}

impl Lanes for bf16 {
    const WIDE: bool = false;
    fn values(values: &[Self]) -> Values<'_> {
        Values::Bf16(values)
    }
    fn output<'a>(values: &'a mut [Self], residual: Option<&'a [Self]>) -> Output<'a> {
        Output::Bf16(values, residual)
    }
    #[inline(always)]
    unsafe fn round<S: Simd>(_: S, from: *const Self, to: *mut bf16, n: usize) {
        std::ptr::copy_nonoverlapping(from, to, n);
    }
    #[inline(always)]
    unsafe fn round_line<S: Simd>(_: S, from: *const Self, to: *mut bf16) {
        to.cast::<[u8; 64]>().write_unaligned(from.cast::<[u8; 64]>().read_unaligned());
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V {
        s.load_bf16(p)
    }
    #[inline(always)]
    unsafe fn load_n<S: Simd>(s: S, p: *const Self, n: usize) -> S::V {
        s.load_bf16_n(p, n)
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(s: S, p: *mut Self, v: S::V) {
        s.store_bf16(p, v);
    }
    #[inline(always)]
    unsafe fn store_n<S: Simd>(s: S, p: *mut Self, v: S::V, n: usize) {
        s.store_bf16_n(p, v, n);
    }
}
