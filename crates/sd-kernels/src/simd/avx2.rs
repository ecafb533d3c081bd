//! Vectors of eight: AVX2 with FMA.
//!
//! Every `unsafe` block here calls an intrinsic that is sound because a value of [`Avx2`] exists only on a
//! processor with AVX2 and FMA; pointers are the caller's promise.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

use std::arch::x86_64::*;

use half::bf16;

use super::Simd;
use crate::attention::panel::{PanelTile, panel_tile};
use crate::element::Lanes;
use crate::gemm::micro::{Tile, tile_rows};

/// AVX2 and FMA are there.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The processor and the operating system support AVX2 and FMA.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Self {
        Self(())
    }
}

const LANES: usize = 8;

/// A mask whose first `n` lanes are set.
#[inline(always)]
fn first(n: usize) -> __m256i {
    unsafe {
        let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), lane)
    }
}

/// The upper halves of eight f32 values, rounded to nearest even, NaN made quiet.
#[inline(always)]
fn round_bf16(v: __m256) -> __m128i {
    unsafe {
        let bits = _mm256_castps_si256(v);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
        let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
        let high = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan));
        let packed = _mm256_packus_epi32(high, high);
        _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(packed))
    }
}

impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = LANES;
    const MR: usize = 6;
    const PANEL_HEIGHT: usize = 4;
    const PANEL_VECTORS: usize = 3;

    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    fn prefetch_write(self, p: *const u8) {
        // Does nothing on processors that do not know it.
        unsafe { std::arch::asm!("prefetchw [{}]", in(reg) p, options(nostack, readonly, preserves_flags)) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::V {
        _mm256_loadu_ps(p)
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::V) {
        _mm256_storeu_ps(p, v);
    }
    #[inline(always)]
    unsafe fn load_n(self, p: *const f32, n: usize) -> Self::V {
        _mm256_maskload_ps(p, first(n))
    }
    #[inline(always)]
    unsafe fn store_n(self, p: *mut f32, v: Self::V, n: usize) {
        _mm256_maskstore_ps(p, first(n), v);
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> Self::V {
        let half = _mm_loadu_si128(p.cast());
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(half)))
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16, v: Self::V) {
        _mm_storeu_si128(p.cast(), round_bf16(v));
    }
    #[inline(always)]
    unsafe fn load_bf16_n(self, p: *const bf16, n: usize) -> Self::V {
        let mut buffer = [bf16::ZERO; LANES];
        std::ptr::copy_nonoverlapping(p, buffer.as_mut_ptr(), n);
        self.load_bf16(buffer.as_ptr())
    }
    #[inline(always)]
    unsafe fn store_bf16_n(self, p: *mut bf16, v: Self::V, n: usize) {
        let mut buffer = [bf16::ZERO; LANES];
        self.store_bf16(buffer.as_mut_ptr(), v);
        std::ptr::copy_nonoverlapping(buffer.as_ptr(), p, n);
    }
    #[inline(always)]
    unsafe fn load_pairs(self, p: *const bf16) -> (Self::V, Self::V) {
        let pairs = _mm256_loadu_si256(p.cast());
        let odd = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32));
        (_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)), _mm256_castsi256_ps(odd))
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    fn round(self, v: Self::V) -> Self::V {
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v) }
    }
    #[inline(always)]
    fn ldexp(self, v: Self::V, n: Self::V) -> Self::V {
        // Two factors, since 2^n alone may overflow or vanish while the product does not.
        unsafe {
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let rest = _mm256_sub_epi32(n, half);
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias)));
            let high = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(rest, bias)));
            _mm256_mul_ps(_mm256_mul_ps(v, low), high)
        }
    }
    #[inline(always)]
    fn add_exponent(self, v: Self::V, n: Self::V) -> Self::V {
        unsafe {
            let power = _mm256_slli_epi32::<23>(_mm256_castps_si256(n));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v), power))
        }
    }
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    fn greatest(self, v: Self::V) -> f32 {
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    unsafe fn panel_tile<const NV: usize>(self, tile: &PanelTile) {
        panel_tile::<Self, 4, NV>(self, tile);
    }
    #[inline(always)]
    unsafe fn tile<W: Lanes, const NV: usize, const STRIDE: usize>(self, tile: &Tile<W, STRIDE>) {
        if tile.rows > 2 {
            tile_rows::<Self, W, 6, NV, STRIDE>(self, tile);
        } else {
            tile_rows::<Self, W, 2, NV, STRIDE>(self, tile);
        }
    }
}
