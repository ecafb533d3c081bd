//! A small vector vocabulary, so that each kernel is written once and compiled for every instruction set.
//!
//! A value of a [`Simd`] type is the proof that the processor has the instructions: only
//! [`Kernels::dispatch`](crate::Kernels) makes one, after detection. Kernels are `#[inline(always)]` generic
//! code; `dispatch` instantiates them inside a `#[target_feature]` function, where the intrinsics inline.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod math;
pub(crate) mod portable;

use half::bf16;

use crate::gemm::micro::Tile;

/// Vectors of `LANES` f32 values and what can be done with them.
///
/// # Safety
/// Of the loads and stores: the pointer is valid for `LANES` (or `n <= LANES`) elements, of any alignment.
pub(crate) trait Simd: Copy {
    /// `LANES` f32 values in registers.
    type V: Copy;
    /// Values in a vector.
    const LANES: usize;
    /// Rows of the matrix microkernel's largest tile.
    const MR: usize;

    fn splat(self, x: f32) -> Self::V;
    unsafe fn load(self, p: *const f32) -> Self::V;
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// Loads the first `n` lanes; the others are zero.
    unsafe fn load_n(self, p: *const f32, n: usize) -> Self::V;
    unsafe fn store_n(self, p: *mut f32, v: Self::V, n: usize);
    unsafe fn load_bf16(self, p: *const bf16) -> Self::V;
    /// Rounds to nearest even; NaN stays NaN.
    unsafe fn store_bf16(self, p: *mut bf16, v: Self::V);
    unsafe fn load_bf16_n(self, p: *const bf16, n: usize) -> Self::V;
    unsafe fn store_bf16_n(self, p: *mut bf16, v: Self::V, n: usize);

    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, fused where the hardware fuses.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The greater of each pair; `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The lesser of each pair; `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// Rounds to the nearest integer, ties to even.
    fn round(self, v: Self::V) -> Self::V;
    /// `v * 2^n` for integral `n` within -300..=300; overflow and underflow as IEEE.
    fn ldexp(self, v: Self::V, n: Self::V) -> Self::V;
    /// The sum of all lanes, in an order that depends on nothing but `LANES`.
    fn sum(self, v: Self::V) -> f32;
    /// The greatest lane; NaN lanes may be skipped.
    fn greatest(self, v: Self::V) -> f32;

    /// Runs the matrix microkernel on one tile; see [`Tile`].
    ///
    /// # Safety
    /// The pointers of `tile` are valid for its shape.
    unsafe fn tile<W: crate::element::Lanes, const NV: usize, const STRIDE: usize>(
        self,
        tile: &Tile<W, STRIDE>,
    );
}

/// One piece of work, written for any instruction set.
pub(crate) trait Kernel {
    type Out;
    /// Must be `#[inline(always)]`, and so must everything hot that it calls.
    fn run<S: Simd>(self, s: S) -> Self::Out;
}
