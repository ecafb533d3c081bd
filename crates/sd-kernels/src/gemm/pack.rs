//! Weights as the microkernels read them.

use half::{bf16, f16};
use rayon::prelude::*;

use super::Precision;
use crate::amx::{PANEL, TILE, TILE_DEPTH, TILE_ROWS, Tiles};
use crate::buffer::Buffer;
use crate::error::expect;
use crate::{KernelError, Kernels};

/// The element type of weights in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DType {
    F32,
    F16,
    Bf16,
}

/// Borrowed weights of any float type, row-major, of any alignment.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    bytes: &'a [u8],
    dtype: DType,
}

impl<'a> Weights<'a> {
    /// Little-endian f32 values as in a safetensors file; trailing bytes short of a value are ignored.
    pub fn f32_bytes(bytes: &'a [u8]) -> Self {
        Self { bytes, dtype: DType::F32 }
    }

    /// Little-endian f16 values as in a safetensors file.
    pub fn f16_bytes(bytes: &'a [u8]) -> Self {
        Self { bytes, dtype: DType::F16 }
    }

    /// Little-endian bf16 values as in a safetensors file.
    pub fn bf16_bytes(bytes: &'a [u8]) -> Self {
        Self { bytes, dtype: DType::Bf16 }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match self.dtype {
            DType::F32 => self.bytes.len() / 4,
            DType::F16 | DType::Bf16 => self.bytes.len() / 2,
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `put(i, value)` for the values `start + i * step`, `i < count`.
    #[inline]
    fn each(&self, start: usize, step: usize, count: usize, mut put: impl FnMut(usize, f32)) {
        match self.dtype {
            DType::F32 => {
                for i in 0..count {
                    let at = (start + i * step) * 4;
                    let b = &self.bytes[at..at + 4];
                    put(i, f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                }
            }
            DType::F16 => {
                for i in 0..count {
                    let at = (start + i * step) * 2;
                    put(i, f16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]).to_f32());
                }
            }
            DType::Bf16 => {
                for i in 0..count {
                    let at = (start + i * step) * 2;
                    put(i, bf16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]).to_f32());
                }
            }
        }
    }
}

impl<'a> From<&'a [f32]> for Weights<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::f32_bytes(bytes_of(values))
    }
}

impl<'a> From<&'a [f16]> for Weights<'a> {
    fn from(values: &'a [f16]) -> Self {
        Self::f16_bytes(bytes_of(values))
    }
}

impl<'a> From<&'a [bf16]> for Weights<'a> {
    fn from(values: &'a [bf16]) -> Self {
        Self::bf16_bytes(bytes_of(values))
    }
}

/// The memory of plain numbers. (Weights are little-endian, and so is every target that we build for.)
#[allow(unsafe_code)]
fn bytes_of<T: Copy>(values: &[T]) -> &[u8] {
    const { assert!(cfg!(target_endian = "little")) };
    // SAFETY: f32, f16 and bf16 have no padding, and any byte may be read as u8.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// How the columns of B are chosen from the rows of a weight matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Columns {
    /// Column j is row j.
    Plain,
    /// The first half of each panel is rows `0..n/2` (values), the second half rows `n/2..n` (gates).
    Gated,
}

/// How B is stored.
#[derive(Debug)]
pub(crate) enum Storage {
    /// Panels of f32: `[panel][k][column]`.
    F32(Buffer<f32>),
    /// Panels of bf16 in the same order, widened as they are read.
    Bf16(Buffer<bf16>),
    /// For each panel of 32 columns and 32 of depth, two matrix tiles of 16 columns: rows of 16 pairs of
    /// values adjacent in depth. The last depth is filled up with zeros.
    Tiles(Tiles, Buffer<bf16>),
}

/// The right-hand matrix of a product, B[k, n] = weight[n, k], cut in panels of two vectors' columns; a last
/// panel of up to one vector is one vector wide. Columns that do not exist are zero.
#[derive(Debug)]
pub(crate) struct PackedB {
    pub(crate) kernels: Kernels,
    /// Columns, which are rows of the weight matrix.
    pub(crate) n: usize,
    /// Depth.
    pub(crate) k: usize,
    pub(crate) columns: Columns,
    /// Columns of a panel.
    pub(crate) width: usize,
    pub(crate) storage: Storage,
    bias: Option<Buffer<f32>>,
}

/// Which weight rows lie in a panel.
#[derive(Clone, Copy)]
struct Panel {
    columns: Columns,
    width: usize,
    n: usize,
    index: usize,
}

impl Panel {
    /// The weight row of column `j`, if it exists.
    fn row(self, j: usize) -> Option<usize> {
        match self.columns {
            Columns::Plain => Some(self.index * self.width + j).filter(|row| *row < self.n),
            Columns::Gated => {
                let half = self.width / 2;
                let row = self.index * half + j % half;
                (row < self.n / 2).then_some(row + if j < half { 0 } else { self.n / 2 })
            }
        }
    }
}

impl PackedB {
    /// Packs `weight` with `n` rows of `taps * channels` values, stored `[n][channels][taps]`. A linear
    /// layer has one tap; a convolution's depth comes out tap by tap, channels within.
    pub(crate) fn new(
        kernels: Kernels,
        weight: Weights<'_>,
        [n, channels, taps]: [usize; 3],
        bias: Option<Weights<'_>>,
        columns: Columns,
        precision: Precision,
    ) -> Result<Self, KernelError> {
        let k = channels * taps;
        expect("weight values", n * k, weight.len())?;
        if let Some(bias) = &bias {
            expect("bias values", n, bias.len())?;
        }
        if columns == Columns::Gated && !n.is_multiple_of(2) {
            return Err(KernelError::Unsupported("a gated layer with an odd number of weight rows"));
        }
        let tiles = kernels.tiles().filter(|_| precision == Precision::Bf16);
        let width = if tiles.is_some() { PANEL } else { kernels.panel() };
        let panels = panels(n, columns, width);
        let panel = |index| Panel { columns, width, n, index };
        let shape = [channels, taps];
        let storage = match (precision, tiles) {
            (_, Some(tiles)) => Storage::Tiles(tiles, pack_tiles(&weight, panels, shape, panel)),
            (Precision::F32, None) => Storage::F32(pack(&weight, panels, shape, panel, |x| x)),
            (Precision::Bf16, None) => Storage::Bf16(pack(&weight, panels, shape, panel, bf16::from_f32)),
        };
        let bias = bias.map(|bias| {
            let mut packed = Buffer::new(panels * width);
            for (i, value) in packed.iter_mut().enumerate() {
                if let Some(row) = panel(i / width).row(i % width) {
                    bias.each(row, 1, 1, |_, x| *value = x);
                }
            }
            packed
        });
        Ok(Self { kernels, n, k, columns, width, storage, bias })
    }

    /// Number of panels.
    pub(crate) fn panels(&self) -> usize {
        panels(self.n, self.columns, self.width)
    }

    /// Columns of the product after the epilogue.
    pub(crate) fn outputs(&self) -> usize {
        match self.columns {
            Columns::Plain => self.n,
            Columns::Gated => self.n / 2,
        }
    }

    /// Output columns of a full panel.
    pub(crate) fn panel_outputs(&self) -> usize {
        match self.columns {
            Columns::Plain => self.width,
            Columns::Gated => self.width / 2,
        }
    }

    /// Whether panel `index` is one vector wide.
    pub(crate) fn narrow(&self, index: usize) -> bool {
        narrow(self.n, self.columns, self.width, index)
    }

    /// The bias of panel `index`, one panel wide, if there is one.
    pub(crate) fn bias(&self, index: usize) -> Option<&[f32]> {
        let width = self.width;
        self.bias.as_ref().map(|bias| &bias[index * width..(index + 1) * width])
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        let weights = match &self.storage {
            Storage::F32(data) => size_of_val(&data[..]),
            Storage::Bf16(data) | Storage::Tiles(_, data) => size_of_val(&data[..]),
        };
        weights + self.bias.as_ref().map_or(0, |bias| size_of_val(&bias[..]))
    }
}

impl Kernels {
    /// Bytes that a weight of `rows` times `depth` values takes when it is packed, with its bias: what
    /// [`PackedLinear::bytes`](crate::PackedLinear::bytes) and [`PackedConv2d::bytes`](crate::PackedConv2d::bytes)
    /// will tell. Saturates.
    ///
    /// `rows` counts the weight's rows: twice the outputs of a gated layer. `depth` is the values of a row.
    pub fn packed_bytes(
        self,
        [rows, depth]: [usize; 2],
        gated: bool,
        bias: bool,
        precision: Precision,
    ) -> usize {
        let columns = if gated { Columns::Gated } else { Columns::Plain };
        let (width, depth, value) = match (precision, self.tiles()) {
            (Precision::Bf16, Some(_)) => (PANEL, depth.next_multiple_of(TILE_DEPTH), size_of::<bf16>()),
            (Precision::Bf16, None) => (self.panel(), depth, size_of::<bf16>()),
            (Precision::F32, _) => (self.panel(), depth, size_of::<f32>()),
        };
        let bias = if bias { size_of::<f32>() } else { 0 };
        let columns = panels(rows, columns, width).saturating_mul(width);
        columns.saturating_mul(depth.saturating_mul(value).saturating_add(bias))
    }
}

fn panels(n: usize, columns: Columns, width: usize) -> usize {
    match columns {
        Columns::Plain => n.div_ceil(width),
        Columns::Gated => (n / 2).div_ceil(width / 2),
    }
}

fn narrow(n: usize, columns: Columns, width: usize, index: usize) -> bool {
    columns == Columns::Plain && n.saturating_sub(index * width) <= width / 2
}

/// Channels of a weight row that are copied at once: few enough that the lines which they are written to stay
/// in cache across the columns.
const STRETCH: usize = 32;

/// Fills panels in parallel.
fn pack<T: crate::element::Lanes>(
    weight: &Weights<'_>,
    panels: usize,
    [channels, taps]: [usize; 2],
    panel: impl Fn(usize) -> Panel + Sync,
    convert: impl Fn(f32) -> T + Sync,
) -> Buffer<T> {
    let k = channels * taps;
    let Panel { width, n, columns, .. } = panel(0);
    let mut packed = Buffer::<T>::new(panels * k * width);
    if packed.is_empty() {
        return packed;
    }
    packed.par_chunks_mut(k * width).enumerate().for_each(|(index, packed)| {
        let panel = panel(index);
        // A narrow panel's columns lie one vector apart, in the front half of its room.
        let step = if narrow(n, columns, width, index) { width / 2 } else { width };
        for tap in 0..taps {
            for from in (0..channels).step_by(STRETCH) {
                let count = STRETCH.min(channels - from);
                for (j, row) in (0..step).filter_map(|j| Some((j, panel.row(j)?))) {
                    let to = &mut packed[(tap * channels + from) * step + j..];
                    weight.each(row * k + from * taps + tap, taps, count, |i, x| to[i * step] = convert(x));
                }
            }
        }
    });
    packed
}

/// Fills panels of tiles in parallel.
fn pack_tiles(
    weight: &Weights<'_>,
    panels: usize,
    [channels, taps]: [usize; 2],
    panel: impl Fn(usize) -> Panel + Sync,
) -> Buffer<bf16> {
    let k = channels * taps;
    let len = k.div_ceil(TILE_DEPTH) * 2 * TILE;
    let mut packed = Buffer::<bf16>::new(panels * len);
    if packed.is_empty() {
        return packed;
    }
    packed.par_chunks_mut(len).enumerate().for_each(|(index, packed)| {
        let panel = panel(index);
        for tap in 0..taps {
            for from in (0..channels).step_by(STRETCH) {
                let count = STRETCH.min(channels - from);
                for (j, row) in (0..PANEL).filter_map(|j| Some((j, panel.row(j)?))) {
                    let column = j / TILE_ROWS * TILE + j % TILE_ROWS * 2;
                    weight.each(row * k + from * taps + tap, taps, count, |i, x| {
                        let k = tap * channels + from + i;
                        let (step, inner) = (k / TILE_DEPTH, k % TILE_DEPTH);
                        packed[step * 2 * TILE + inner / 2 * TILE_DEPTH + inner % 2 + column] =
                            bf16::from_f32(x);
                    });
                }
            }
        }
    });
    packed
}
