//! Which kernels this machine can run, and which it does.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::KernelError;
use crate::amx::Tiles;
use crate::simd::{Kernel, Vectors};

/// A family of kernels, by the instructions that it needs; later ones are faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum KernelSet {
    /// Plain Rust, on any processor; on aarch64 with NEON.
    Scalar,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// bf16 matrix tiles, and AVX-512 with BF16 for the rest.
    Amx,
}

impl KernelSet {
    /// Every set, slowest first.
    pub const ALL: [Self; 4] = [Self::Scalar, Self::Avx2, Self::Avx512, Self::Amx];

    /// The name that `SD_KERNELS` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        }
    }
}

/// What `SD_KERNELS` takes beside the sets' names: AMX's results on any machine, slowly, for tests.
const EMULATED: &str = "amx-emulated";

impl fmt::Display for KernelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for KernelSet {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, KernelError> {
        let lower = name.trim().to_ascii_lowercase();
        Self::ALL.into_iter().find(|set| set.name() == lower).ok_or(KernelError::UnknownSet(name.to_owned()))
    }
}

/// A kernel set that was found to work here: the receiver of every kernel.
///
/// ```
/// let kernels = sd_kernels::active();
/// let mut x = [1.0f32, -1.0];
/// kernels.activate(sd_kernels::Activation::Silu, &mut x);
/// assert!((x[0] - 0.731_058_6).abs() < 1e-6);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernels {
    set: KernelSet,
    /// What runs everything but tiles.
    vectors: Vectors,
    tiles: Option<Tiles>,
}

impl Kernels {
    /// The kernels of `set`, or why they cannot run here.
    pub fn new(set: KernelSet) -> Result<Self, KernelError> {
        find(set).map_err(|reason| KernelError::Unavailable { set, reason: reason.into() })
    }

    /// Every set that runs here, slowest first.
    pub fn available() -> Vec<Self> {
        KernelSet::ALL.into_iter().filter_map(|set| Self::new(set).ok()).collect()
    }

    /// The fastest set that runs here.
    pub fn detect() -> Self {
        let portable = Self { set: KernelSet::Scalar, vectors: Vectors::Portable, tiles: None };
        Self::available().last().copied().unwrap_or(portable)
    }

    /// The AMX kernels with tiles multiplied by the fastest vectors there are: for testing all but the tile
    /// instructions where there are none. The results are those of AMX bit for bit, but for denormal values and
    /// where vectors do not fuse products (the scalar set).
    #[doc(hidden)]
    pub fn emulated_amx() -> Self {
        let vectors = Vectors::available().pop().unwrap_or(Vectors::Portable);
        Self { set: KernelSet::Amx, vectors, tiles: Some(Tiles::Emulated(vectors)) }
    }

    /// What the environment variable `SD_KERNELS` asks for, or the fastest set where it is not set.
    pub fn from_env() -> Result<Self, KernelError> {
        match std::env::var_os("SD_KERNELS") {
            Some(name) if name == EMULATED => Ok(Self::emulated_amx()),
            Some(name) if !name.is_empty() => Self::new(name.to_string_lossy().parse()?),
            _ => Ok(Self::detect()),
        }
    }

    /// Which set this is.
    pub fn set(self) -> KernelSet {
        self.set
    }

    /// Whether bf16 matrix products run on bf16 hardware instead of widening to f32.
    pub fn native_bf16(self) -> bool {
        self.tiles.is_some()
    }

    /// Who multiplies matrix tiles, if anyone.
    pub(crate) fn tiles(self) -> Option<Tiles> {
        self.tiles
    }

    /// Whether tiles are multiplied by ordinary vectors, for tests.
    fn emulated(self) -> bool {
        matches!(self.tiles, Some(Tiles::Emulated(_)))
    }

    /// f32 values in a vector of this set.
    pub(crate) fn lanes(self) -> usize {
        self.vectors.lanes()
    }

    /// Rows of attention's tile.
    pub(crate) fn panel_height(self) -> usize {
        self.vectors.panel().0
    }

    /// The most vectors of columns of attention's tile.
    pub(crate) fn panel_vectors(self) -> usize {
        self.vectors.panel().1
    }

    /// Rows of the largest f32 matrix tile.
    pub(crate) fn tile_rows(self) -> usize {
        self.vectors.tile_rows()
    }

    /// Runs `kernel` compiled for this set.
    #[inline]
    pub(crate) fn dispatch<K: Kernel>(self, kernel: K) -> K::Out {
        self.vectors.dispatch(kernel)
    }
}

/// The kernels of `set`, or why they cannot run here.
#[cfg(target_arch = "x86_64")]
fn find(set: KernelSet) -> Result<Kernels, &'static str> {
    let (vectors, tiles, lacking) = match set {
        KernelSet::Scalar => (Vectors::Portable, None, ""),
        KernelSet::Avx2 => (Vectors::Avx2, None, "the processor has no AVX2 with FMA"),
        KernelSet::Avx512 => (Vectors::Avx512, None, "the processor has no AVX-512 F, BW, DQ and VL"),
        KernelSet::Amx => (
            Vectors::Avx512Bf16,
            Some(Tiles::Hardware),
            "AMX is used beside AVX-512 F, BW, DQ, VL and BF16, which the processor lacks",
        ),
    };
    if !Vectors::available().contains(&vectors) {
        return Err(lacking);
    }
    if tiles.is_some()
        && let Some(reason) = crate::amx::unavailable()
    {
        return Err(reason);
    }
    Ok(Kernels { set, vectors, tiles })
}

/// The kernels of `set`, or why they cannot run here.
#[cfg(not(target_arch = "x86_64"))]
fn find(set: KernelSet) -> Result<Kernels, &'static str> {
    match set {
        KernelSet::Scalar => Ok(Kernels { set, vectors: Vectors::Portable, tiles: None }),
        _ => Err("it is an x86-64 instruction set"),
    }
}

/// The kernels of this process: `SD_KERNELS` if it names a set that runs here, else the fastest one.
///
/// Settled at the first call. An unusable `SD_KERNELS` falls back to the fastest set; [`report`] says so, and
/// [`Kernels::from_env`] returns it as an error.
pub fn active() -> Kernels {
    selection().0
}

fn selection() -> &'static (Kernels, Option<KernelError>) {
    static SELECTION: OnceLock<(Kernels, Option<KernelError>)> = OnceLock::new();
    SELECTION.get_or_init(|| match Kernels::from_env() {
        Ok(kernels) => (kernels, None),
        Err(error) => (Kernels::detect(), Some(error)),
    })
}

/// What was found about this machine's kernels, for a person to read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// The set in use.
    pub active: KernelSet,
    /// Whether it is AMX as ordinary vectors compute it, which is for tests.
    #[doc(hidden)]
    pub emulated: bool,
    /// Every set, with the reason where it cannot run.
    pub sets: Vec<(KernelSet, Option<String>)>,
    /// Why `SD_KERNELS` was not followed, if it was not.
    pub warning: Option<KernelError>,
}

/// Says which kernels run here and why not faster ones.
pub fn report() -> Report {
    let (kernels, warning) = selection();
    Report {
        active: kernels.set,
        emulated: kernels.emulated(),
        sets: KernelSet::ALL.into_iter().map(|set| (set, find(set).err().map(str::to_owned))).collect(),
        warning: warning.clone(),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(warning) = &self.warning {
            writeln!(f, "warning: SD_KERNELS was not followed: {warning}")?;
        }
        let emulated = if self.emulated { ", emulated, for tests" } else { "" };
        write!(f, "kernels: {}{emulated}", self.active)?;
        for (set, reason) in self.sets.iter().rev() {
            match reason {
                None if *set == self.active => write!(f, "\n  {set}: in use")?,
                None => write!(f, "\n  {set}: available")?,
                Some(reason) => write!(f, "\n  {set}: {reason}")?,
            }
        }
        Ok(())
    }
}
