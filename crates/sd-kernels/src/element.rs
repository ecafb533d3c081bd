//! The element types of activations: f32 and bf16.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

use half::bf16;

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

/// How an element type goes in and out of vectors of f32. Seals [`Element`].
///
/// # Safety
/// Of the functions: the pointer is valid for `S::LANES`, or `n`, elements of any alignment.
pub(crate) trait Lanes: Copy + Send + Sync + 'static {
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V;
    unsafe fn load_n<S: Simd>(s: S, p: *const Self, n: usize) -> S::V;
    unsafe fn store<S: Simd>(s: S, p: *mut Self, v: S::V);
    unsafe fn store_n<S: Simd>(s: S, p: *mut Self, v: S::V, n: usize);
}

impl Lanes for f32 {
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
