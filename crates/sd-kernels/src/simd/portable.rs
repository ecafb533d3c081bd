//! Vectors of four as plain arrays, which the compiler maps to SSE2, NEON or whatever there is.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

use half::bf16;

use super::Simd;
#[cfg(target_arch = "aarch64")]
use super::neon;
use crate::attention::panel::{PanelTile, panel_tile};
use crate::element::Lanes;
use crate::gemm::micro::Tile;
#[cfg(not(target_arch = "aarch64"))]
use crate::gemm::micro::tile_rows;

/// The portable instruction set: no requirements.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

const LANES: usize = 4;

/// Where no fused instruction is sure, `mul_add` would call into libm for each lane.
#[inline(always)]
fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) { a.mul_add(b, c) } else { a * b + c }
}

/// The value in f32, without the care of `to_f32` for signalling NaN, which takes more than the rest: products make
/// them quiet.
#[inline(always)]
fn widen(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

macro_rules! lanes {
    ($i:ident => $e:expr) => {{
        let mut out = [0f32; LANES];
        for ($i, o) in out.iter_mut().enumerate() {
            *o = $e;
        }
        out
    }};
}

impl Simd for Portable {
    type V = [f32; LANES];
    const LANES: usize = LANES;
    const MR: usize = if cfg!(target_arch = "aarch64") { 8 } else { 4 };
    const PANEL_HEIGHT: usize = if cfg!(target_arch = "aarch64") { 8 } else { 4 };
    const PANEL_VECTORS: usize = if cfg!(target_arch = "aarch64") { 3 } else { 2 };

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::V {
        p.cast::<Self::V>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::V) {
        p.cast::<Self::V>().write_unaligned(v);
    }
    #[inline(always)]
    unsafe fn load_n(self, p: *const f32, n: usize) -> Self::V {
        lanes!(i => if i < n { *p.add(i) } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store_n(self, p: *mut f32, v: Self::V, n: usize) {
        for (i, x) in v.iter().enumerate().take(n) {
            *p.add(i) = *x;
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> Self::V {
        lanes!(i => widen(*p.add(i)))
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16, v: Self::V) {
        for (i, x) in v.iter().enumerate() {
            *p.add(i) = bf16::from_f32(*x);
        }
    }
    #[inline(always)]
    unsafe fn load_bf16_n(self, p: *const bf16, n: usize) -> Self::V {
        lanes!(i => if i < n { widen(*p.add(i)) } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store_bf16_n(self, p: *mut bf16, v: Self::V, n: usize) {
        for (i, x) in v.iter().enumerate().take(n) {
            *p.add(i) = bf16::from_f32(*x);
        }
    }
    #[inline(always)]
    unsafe fn load_pairs(self, p: *const bf16) -> (Self::V, Self::V) {
        (lanes!(i => widen(*p.add(2 * i))), lanes!(i => widen(*p.add(2 * i + 1))))
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => a[i] / b[i])
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        lanes!(i => mul_add(a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn round(self, v: Self::V) -> Self::V {
        // Adding and subtracting 1.5 * 2^23 rounds to even for |v| < 2^22; `ldexp`'s range needs no more.
        lanes!(i => (v[i] + 12_582_912.0) - 12_582_912.0)
    }
    #[inline(always)]
    fn ldexp(self, v: Self::V, n: Self::V) -> Self::V {
        // Two factors, since 2^n alone may overflow or vanish while the product does not.
        lanes!(i => {
            let n = n[i] as i32;
            let half = n >> 1;
            let power = |e: i32| f32::from_bits((e.wrapping_add(127) as u32) << 23);
            v[i] * power(half) * power(n.wrapping_sub(half))
        })
    }
    #[inline(always)]
    fn add_exponent(self, v: Self::V, n: Self::V) -> Self::V {
        lanes!(i => f32::from_bits(v[i].to_bits().wrapping_add(n[i].to_bits() << 23)))
    }
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        (v[0] + v[2]) + (v[1] + v[3])
    }
    #[inline(always)]
    fn greatest(self, v: Self::V) -> f32 {
        v[0].max(v[2]).max(v[1].max(v[3]))
    }
    #[inline(always)]
    unsafe fn panel_tile<const NV: usize>(self, tile: &PanelTile) {
        if cfg!(target_arch = "aarch64") {
            panel_tile::<Self, 8, NV>(self, tile);
        } else {
            panel_tile::<Self, 4, NV>(self, tile);
        }
    }
    #[inline(always)]
    unsafe fn tile<W: Lanes, const NV: usize, const STRIDE: usize>(self, tile: &Tile<W, STRIDE>) {
        #[cfg(target_arch = "aarch64")]
        if tile.rows > 4 {
            neon::tile::<W, 8, NV, STRIDE>(self, tile);
        } else {
            neon::tile::<W, 4, NV, STRIDE>(self, tile);
        }
        #[cfg(not(target_arch = "aarch64"))]
        if tile.rows > 2 {
            tile_rows::<Self, W, 4, NV, STRIDE>(self, tile);
        } else {
            tile_rows::<Self, W, 2, NV, STRIDE>(self, tile);
        }
    }
}
