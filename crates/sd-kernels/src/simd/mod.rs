//! A small vector vocabulary, so that each kernel is written once and compiled for every instruction set.
//!
//! A value of a [`Simd`] type is the proof that the processor has the instructions: only [`Vectors::dispatch`]
//! makes one, after detection. Kernels are `#[inline(always)]` generic code; `dispatch` instantiates them inside a
//! `#[target_feature]` function, where the intrinsics inline.

#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
pub(crate) mod portable;

use half::bf16;

use crate::attention::panel::PanelTile;
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
    /// Rows of attention's tile; see [`PanelTile`].
    const PANEL_HEIGHT: usize;
    /// The most vectors of its columns, at most three.
    const PANEL_VECTORS: usize;

    /// Asks for a cache line that will be read. Any address is fine.
    #[inline(always)]
    fn prefetch(self, _p: *const u8) {}
    /// Asks for a cache line that will be written. Any address is fine.
    #[inline(always)]
    fn prefetch_write(self, _p: *const u8) {}

    fn splat(self, x: f32) -> Self::V;
    unsafe fn load(self, p: *const f32) -> Self::V;
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// Loads the first `n` lanes; the others are zero.
    unsafe fn load_n(self, p: *const f32, n: usize) -> Self::V;
    unsafe fn store_n(self, p: *mut f32, v: Self::V, n: usize);
    unsafe fn load_bf16(self, p: *const bf16) -> Self::V;
    /// Rounds to nearest even; NaN stays NaN. AVX512-BF16 makes denormal values zero.
    unsafe fn store_bf16(self, p: *mut bf16, v: Self::V);
    unsafe fn load_bf16_n(self, p: *const bf16, n: usize) -> Self::V;
    unsafe fn store_bf16_n(self, p: *mut bf16, v: Self::V, n: usize);
    /// Stores two vectors one after the other, as [`store_bf16`](Self::store_bf16).
    #[inline(always)]
    unsafe fn store_bf16_twice(self, p: *mut bf16, [a, b]: [Self::V; 2]) {
        self.store_bf16(p, a);
        self.store_bf16(p.add(Self::LANES), b);
    }
    /// Loads `LANES` pairs: the first values of all, and the second.
    unsafe fn load_pairs(self, p: *const bf16) -> (Self::V, Self::V);

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
    /// `v * 2^n` by adding to the exponent's bits, where the last nine bits of `n` as a number hold the power: for
    /// a `v` next to 1 and a power over -127; 1 at -127 gives zero.
    fn add_exponent(self, v: Self::V, n: Self::V) -> Self::V;
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

    /// Runs attention's microkernel on one tile, `PANEL_HEIGHT` rows by `NV` vectors.
    ///
    /// # Safety
    /// The pointers of `tile` are valid for its shape.
    unsafe fn panel_tile<const NV: usize>(self, tile: &PanelTile);
}

/// One piece of work, written for any instruction set.
pub(crate) trait Kernel {
    type Out;
    /// Must be `#[inline(always)]`, and so must everything hot that it calls.
    fn run<S: Simd>(self, s: S) -> Self::Out;
}

/// Vector instructions. Others than the portable ones are named only where they were found: see
/// [`Vectors::available`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vectors {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX-512 with its conversions to bf16.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
}

impl Vectors {
    /// Those that this machine has, slowest first.
    pub(crate) fn available() -> Vec<Self> {
        #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))]
        let mut found = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            let bf16 = avx512 && is_x86_feature_detected!("avx512bf16");
            for (there, vectors) in [(avx2, Self::Avx2), (avx512, Self::Avx512), (bf16, Self::Avx512Bf16)] {
                found.extend(there.then_some(vectors));
            }
        }
        found
    }

    /// f32 values in a vector.
    pub(crate) fn lanes(self) -> usize {
        match self {
            Self::Portable => portable::Portable::LANES,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::Avx2::LANES,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx512Bf16 => avx512::Avx512::<false>::LANES,
        }
    }

    /// Rows of the largest f32 matrix tile.
    pub(crate) fn tile_rows(self) -> usize {
        match self {
            Self::Portable => portable::Portable::MR,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::Avx2::MR,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx512Bf16 => avx512::Avx512::<false>::MR,
        }
    }

    /// Rows of attention's tile, and the most vectors of its columns.
    pub(crate) fn panel(self) -> (usize, usize) {
        fn of<S: Simd>() -> (usize, usize) {
            (S::PANEL_HEIGHT, S::PANEL_VECTORS)
        }
        match self {
            Self::Portable => of::<portable::Portable>(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => of::<avx2::Avx2>(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx512Bf16 => of::<avx512::Avx512<false>>(),
        }
    }

    /// Runs `kernel` compiled for these instructions.
    #[inline]
    pub(crate) fn dispatch<K: Kernel>(self, kernel: K) -> K::Out {
        match self {
            Self::Portable => kernel.run(portable::Portable),
            // SAFETY: these variants exist only where their instructions were found.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { run_avx2(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { run_avx512(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => unsafe { run_avx512_bf16(kernel) },
        }
    }
}

/// # Safety
/// The processor has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Out {
    kernel.run(avx2::Avx2::assume())
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Out {
    kernel.run(avx512::Avx512::<false>::assume())
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and BF16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn run_avx512_bf16<K: Kernel>(kernel: K) -> K::Out {
    kernel.run(avx512::Avx512::<true>::assume())
}
