//! What the tile instructions compute, on ordinary vectors.

use super::{TILE, TILE_DEPTH, TILE_ROWS, TileProduct};
use crate::simd::{Kernel, Simd};

/// Pairs of values in a tile's row.
const PAIRS: usize = TILE_DEPTH / 2;

/// Computes one block as TDPBF16PS does: within a tile the first values of all pairs are summed, and the second,
/// by fused products; then both sums, and then what C holds. Where vectors fuse, the result is the processor's bit
/// for bit, but for denormal values, which tiles take for zero.
///
/// Whoever dispatches it vouches for the product's pointers.
pub(super) struct Emulate<'a> {
    pub(super) product: &'a TileProduct,
}

impl Kernel for Emulate<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = if self.product.two_rows { 2 * TILE_ROWS } else { TILE_ROWS };
        // As many rows as keep their two sums, and what feeds them, in registers.
        const MANY: usize = 8;
        const FEW: usize = 4;
        // SAFETY: the caller's promise; both numbers of rows divide a tile's.
        unsafe {
            if S::LANES == 16 {
                (0..rows).step_by(MANY).for_each(|row| self.rows::<S, MANY>(s, row));
            } else {
                (0..rows).step_by(FEW).for_each(|row| self.rows::<S, FEW>(s, row));
            }
        }
    }
}

impl Emulate<'_> {
    /// Computes `R` rows from `first` on, which lie in one row of tiles.
    #[inline(always)]
    unsafe fn rows<S: Simd, const R: usize>(&self, s: S, first: usize) {
        let product = self.product;
        let columns = if product.two_columns { 2 * TILE_ROWS } else { TILE_ROWS };
        let c = product.c.wrapping_add(first * product.c_stride);
        if !product.accumulate {
            for row in 0..R {
                for column in (0..columns).step_by(S::LANES) {
                    s.store(c.add(row * product.c_stride + column), s.splat(0.0));
                }
            }
        }
        for step in 0..product.steps {
            let a = product.a[first / TILE_ROWS].add(step * TILE + first % TILE_ROWS * TILE_DEPTH);
            let (mut evens, mut odds) = ([[0f32; PAIRS]; R], [[0f32; PAIRS]; R]);
            for (row, (evens, odds)) in evens.iter_mut().zip(&mut odds).enumerate() {
                for pair in (0..PAIRS).step_by(S::LANES) {
                    let (even, odd) = s.load_pairs(a.add(row * TILE_DEPTH + 2 * pair));
                    s.store(evens[pair..].as_mut_ptr(), even);
                    s.store(odds[pair..].as_mut_ptr(), odd);
                }
            }
            for column in (0..columns).step_by(S::LANES) {
                let tile = product.b.add((2 * step + column / TILE_ROWS) * TILE);
                let (mut even_sums, mut odd_sums) = ([s.splat(0.0); R], [s.splat(0.0); R]);
                for pair in 0..PAIRS {
                    let (even, odd) = s.load_pairs(tile.add(pair * TILE_DEPTH + column % TILE_ROWS * 2));
                    for row in 0..R {
                        even_sums[row] = s.fma(s.splat(evens[row][pair]), even, even_sums[row]);
                        odd_sums[row] = s.fma(s.splat(odds[row][pair]), odd, odd_sums[row]);
                    }
                }
                for row in 0..R {
                    let to = c.add(row * product.c_stride + column);
                    s.store(to, s.add(s.load(to), s.add(even_sums[row], odd_sums[row])));
                }
            }
        }
    }
}
