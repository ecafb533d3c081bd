//! Vectors of sixteen: AVX-512 F, BW, DQ and VL, and BF16 where it is there.
//!
//! Every `unsafe` block here calls an intrinsic that is sound because a value of [`Avx512`] exists only on a
//! processor with these extensions; pointers are the caller's promise.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

use std::arch::x86_64::*;

use half::bf16;

use super::Simd;
use crate::attention::panel::{PanelTile, panel_tile};
use crate::element::Lanes;
use crate::gemm::micro::{Tile, tile_rows};

/// AVX-512 F, BW, DQ and VL are there, and if `BF16`, AVX512-BF16.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const BF16: bool>(());

impl<const BF16: bool> Avx512<BF16> {
    /// # Safety
    /// The processor and the operating system support AVX-512 F, BW, DQ and VL, and if `BF16`, AVX512-BF16.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Self {
        Self(())
    }
}

/// A mask whose first `n <= 16` lanes are set.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

/// The upper halves of sixteen f32 values, rounded to nearest even, NaN made quiet.
#[inline(always)]
fn round_bf16<const BF16: bool>(v: __m512) -> __m256i {
    unsafe {
        if BF16 {
            return std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v));
        }
        let bits = _mm512_castps_si512(v);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
        let quiet = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x0040_0000));
        _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(quiet))
    }
}

impl<const BF16: bool> Simd for Avx512<BF16> {
    type V = __m512;
    const LANES: usize = 16;
    const MR: usize = 12;
    const PANEL_HEIGHT: usize = 8;
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
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::V {
        _mm512_loadu_ps(p)
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::V) {
        _mm512_storeu_ps(p, v);
    }
    #[inline(always)]
    unsafe fn load_n(self, p: *const f32, n: usize) -> Self::V {
        _mm512_maskz_loadu_ps(first(n), p)
    }
    #[inline(always)]
    unsafe fn store_n(self, p: *mut f32, v: Self::V, n: usize) {
        _mm512_mask_storeu_ps(p, first(n), v);
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> Self::V {
        let half = _mm256_loadu_si256(p.cast());
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16, v: Self::V) {
        _mm256_storeu_si256(p.cast(), round_bf16::<BF16>(v));
    }
    #[inline(always)]
    unsafe fn load_bf16_n(self, p: *const bf16, n: usize) -> Self::V {
        let half = _mm256_maskz_loadu_epi16(first(n), p.cast());
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
    }
    #[inline(always)]
    unsafe fn store_bf16_n(self, p: *mut bf16, v: Self::V, n: usize) {
        _mm256_mask_storeu_epi16(p.cast(), first(n), round_bf16::<BF16>(v));
    }
    #[inline(always)]
    unsafe fn store_bf16_twice(self, p: *mut bf16, [a, b]: [Self::V; 2]) {
        if BF16 {
            let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(b, a));
            _mm512_storeu_si512(p.cast(), both);
        } else {
            self.store_bf16(p, a);
            self.store_bf16(p.add(Self::LANES), b);
        }
    }
    #[inline(always)]
    unsafe fn load_pairs(self, p: *const bf16) -> (Self::V, Self::V) {
        let pairs = _mm512_loadu_si512(p.cast());
        let odd = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
        (_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(odd))
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn round(self, v: Self::V) -> Self::V {
        unsafe { _mm512_roundscale_ps::<0>(v) }
    }
    #[inline(always)]
    fn ldexp(self, v: Self::V, n: Self::V) -> Self::V {
        unsafe { _mm512_scalef_ps(v, n) }
    }
    #[inline(always)]
    fn add_exponent(self, v: Self::V, n: Self::V) -> Self::V {
        unsafe {
            let power = _mm512_slli_epi32::<23>(_mm512_castps_si512(n));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(v), power))
        }
    }
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        unsafe {
            let high = _mm512_extractf32x8_ps::<1>(v);
            let eight = _mm256_add_ps(_mm512_castps512_ps256(v), high);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    fn greatest(self, v: Self::V) -> f32 {
        unsafe {
            let high = _mm512_extractf32x8_ps::<1>(v);
            let eight = _mm256_max_ps(_mm512_castps512_ps256(v), high);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    unsafe fn panel_tile<const NV: usize>(self, tile: &PanelTile) {
        panel_tile::<Self, 8, NV>(self, tile);
    }
    #[inline(always)]
    unsafe fn tile<W: Lanes, const NV: usize, const STRIDE: usize>(self, tile: &Tile<W, STRIDE>) {
        if tile.rows > 6 {
            tile_rows::<Self, W, 12, NV, STRIDE>(self, tile);
        } else if tile.rows > 2 {
            tile_rows::<Self, W, 6, NV, STRIDE>(self, tile);
        } else {
            tile_rows::<Self, W, 2, NV, STRIDE>(self, tile);
        }
    }
}
