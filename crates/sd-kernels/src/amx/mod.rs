//! AMX: asking the processor and the operating system for matrix tiles, and multiplying with them.
//!
//! The intrinsics are not stable, so the instructions are written out. The same products exist on ordinary vectors
//! ([`Tiles::Emulated`]), with which everything around the instructions is tested on any machine.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

mod emulated;
#[cfg(target_arch = "x86_64")]
mod hardware;

use half::bf16;

use crate::simd::Vectors;
use emulated::Emulate;
#[cfg(target_arch = "x86_64")]
pub(crate) use hardware::unavailable;

/// Rows of a tile.
pub(crate) const TILE_ROWS: usize = 16;
/// bf16 values in a tile's row: the depth that one instruction goes through.
pub(crate) const TILE_DEPTH: usize = 32;
/// bf16 values in a tile.
pub(crate) const TILE: usize = TILE_ROWS * TILE_DEPTH;
/// f32 columns of a panel: two tiles of sums.
pub(crate) const PANEL: usize = 32;

/// Who multiplies tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tiles {
    /// The processor: exists only after [`unavailable`] found that it can.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    Hardware,
    /// Ordinary vectors, with the results of the processor's tiles: for tests.
    Emulated(Vectors),
}

/// One block of C = A * B in bf16 with f32 sums, or C += A * B: up to two tiles by two.
#[derive(Clone, Copy)]
pub(crate) struct TileProduct {
    /// One or two rows of tiles of A, each `steps` tiles one after the other: 16 rows of 32 values.
    pub(crate) a: [*const bf16; 2],
    /// For each step two tiles of B, each 16 rows of 16 pairs of values adjacent in depth.
    pub(crate) b: *const bf16,
    /// Depth in tiles.
    pub(crate) steps: usize,
    /// C, row-major, with room for 16 rows of 16 values for each tile.
    pub(crate) c: *mut f32,
    /// f32 values from one row of C to the next.
    pub(crate) c_stride: usize,
    /// Whether the second row of tiles is computed.
    pub(crate) two_rows: bool,
    /// Whether the second column of tiles is computed.
    pub(crate) two_columns: bool,
    /// Start from what C holds instead of zero.
    pub(crate) accumulate: bool,
}

/// Tiles configured on this thread, until dropped.
pub(crate) struct Session {
    tiles: Tiles,
}

impl Session {
    /// Configures all eight tiles as 16 rows of 64 bytes.
    pub(crate) fn new(tiles: Tiles) -> Self {
        #[cfg(target_arch = "x86_64")]
        if tiles == Tiles::Hardware {
            // SAFETY: `Tiles::Hardware` exists only where AMX was found and permitted.
            unsafe { hardware::configure() };
        }
        Self { tiles }
    }

    /// Computes one block.
    ///
    /// # Safety
    /// The pointers are valid for the product's shape.
    #[inline]
    pub(crate) unsafe fn multiply(&self, product: &TileProduct) {
        match self.tiles {
            #[cfg(target_arch = "x86_64")]
            Tiles::Hardware => hardware::multiply(product),
            #[cfg(not(target_arch = "x86_64"))]
            Tiles::Hardware => Vectors::Portable.dispatch(Emulate { product }),
            Tiles::Emulated(vectors) => vectors.dispatch(Emulate { product }),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        if self.tiles == Tiles::Hardware {
            // SAFETY: as in `new`. Without tiles in use the thread's switches stay cheap.
            unsafe { hardware::release() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: usize = 2;
    const DEPTH: usize = STEPS * TILE_DEPTH;
    const C_STRIDE: usize = 33;

    /// Multiplies two tiles by two, with C full of ones before, given A and B by row and column.
    fn multiply(
        tiles: Tiles,
        a: impl Fn(usize, usize) -> f32,
        b: impl Fn(usize, usize) -> f32,
        accumulate: bool,
    ) -> Vec<f32> {
        let mut left = vec![bf16::ZERO; 2 * STEPS * TILE];
        let mut right = vec![bf16::ZERO; 2 * STEPS * TILE];
        for k in 0..DEPTH {
            let (step, inner) = (k / TILE_DEPTH, k % TILE_DEPTH);
            for i in 0..2 * TILE_ROWS {
                let tile = (i / TILE_ROWS * STEPS + step) * TILE;
                left[tile + i % TILE_ROWS * TILE_DEPTH + inner] = bf16::from_f32(a(i, k));
                let tile = (2 * step + i / TILE_ROWS) * TILE;
                right[tile + inner / 2 * TILE_DEPTH + i % TILE_ROWS * 2 + inner % 2] =
                    bf16::from_f32(b(k, i));
            }
        }
        let mut c = vec![1f32; 2 * TILE_ROWS * C_STRIDE];
        let product = TileProduct {
            a: [left.as_ptr(), left[STEPS * TILE..].as_ptr()],
            b: right.as_ptr(),
            steps: STEPS,
            c: c.as_mut_ptr(),
            c_stride: C_STRIDE,
            two_rows: true,
            two_columns: true,
            accumulate,
        };
        // SAFETY: the buffers have the product's shape.
        unsafe { Session::new(tiles).multiply(&product) };
        c
    }

    /// Everyone who can multiply tiles here.
    fn everyone() -> Vec<Tiles> {
        let mut tiles: Vec<Tiles> = Vectors::available().into_iter().map(Tiles::Emulated).collect();
        #[cfg(target_arch = "x86_64")]
        tiles.extend(unavailable().is_none().then_some(Tiles::Hardware));
        tiles
    }

    /// Against sums written down independently of any layout.
    #[test]
    fn blocks_are_products() {
        let a = |row: usize, k: usize| ((row * 7 + k * 3) % 11) as f32 - 5.0;
        let b = |k: usize, column: usize| ((k * 5 + column) % 13) as f32 - 6.0;
        for tiles in everyone() {
            for accumulate in [false, true] {
                let c = multiply(tiles, a, b, accumulate);
                for i in 0..2 * TILE_ROWS {
                    for j in 0..PANEL {
                        let sum: f32 = (0..DEPTH).map(|k| a(i, k) * b(k, j)).sum();
                        let before = if accumulate { 1.0 } else { 0.0 };
                        assert_eq!(c[i * C_STRIDE + j], before + sum, "{tiles:?}");
                    }
                }
            }
        }
    }

    /// Against the pseudocode of TDPBF16PS in Intel's manual, bit for bit.
    #[test]
    fn sums_are_rounded_as_the_manual_says() {
        let noise = |i: usize| (i.wrapping_mul(2_654_435_761) % 8191) as f32 / 4096.0 - 1.0;
        let a = |row: usize, k: usize| bf16::from_f32(noise(row * DEPTH + k)).to_f32();
        let b = |k: usize, column: usize| bf16::from_f32(noise(7 + k * PANEL + column)).to_f32();
        for tiles in everyone().into_iter().filter(|tiles| *tiles != Tiles::Emulated(Vectors::Portable)) {
            let c = multiply(tiles, a, b, true);
            for i in 0..2 * TILE_ROWS {
                for j in 0..PANEL {
                    let mut expected = 1f32;
                    for step in 0..STEPS {
                        let [mut even, mut odd] = [0f32; 2];
                        for k in (step * TILE_DEPTH..(step + 1) * TILE_DEPTH).step_by(2) {
                            even = a(i, k).mul_add(b(k, j), even);
                            odd = a(i, k + 1).mul_add(b(k + 1, j), odd);
                        }
                        expected += even + odd;
                    }
                    assert_eq!(c[i * C_STRIDE + j].to_bits(), expected.to_bits(), "{tiles:?}");
                }
            }
        }
    }
}
