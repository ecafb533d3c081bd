//! Which kernels this machine can run, and which it does.
#![allow(unsafe_code)]

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::KernelError;
use crate::amx::Tiles;
use crate::simd::portable::Portable;
use crate::simd::{Kernel, Simd};

/// A family of kernels, by the instructions that it needs; later ones are faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum KernelSet {
    /// Plain Rust, on any processor (NEON on aarch64 through the compiler).
    Scalar,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// bf16 matrix tiles, and AVX-512 for the rest.
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
    /// The set that runs everything but tiles.
    vectors: KernelSet,
    tiles: Option<Tiles>,
}

impl Kernels {
    /// The kernels of `set`, or why they cannot run here.
    pub fn new(set: KernelSet) -> Result<Self, KernelError> {
        match unavailable(set) {
            None => Ok(Self::assume(set)),
            Some(reason) => Err(KernelError::Unavailable { set, reason }),
        }
    }

    /// Every set that runs here, slowest first.
    pub fn available() -> Vec<Self> {
        KernelSet::ALL.into_iter().filter_map(|set| Self::new(set).ok()).collect()
    }

    /// The fastest set that runs here.
    pub fn detect() -> Self {
        let set = KernelSet::ALL.into_iter().rev().find(|set| unavailable(*set).is_none());
        Self::assume(set.unwrap_or(KernelSet::Scalar))
    }

    /// The kernels of a set that was found available.
    fn assume(set: KernelSet) -> Self {
        let (vectors, tiles) = match set {
            KernelSet::Amx => (KernelSet::Avx512, Some(Tiles::Hardware)),
            _ => (set, None),
        };
        Self { set, vectors, tiles }
    }

    /// The AMX kernels with tiles multiplied by plain Rust: slow, for testing all but the tile instructions
    /// where there are none.
    #[doc(hidden)]
    pub fn emulated_amx() -> Self {
        let vectors = Self::detect().vectors;
        Self { set: KernelSet::Amx, vectors, tiles: Some(Tiles::Emulated) }
    }

    /// What the environment variable `SD_KERNELS` asks for, or the fastest set where it is not set.
    pub fn from_env() -> Result<Self, KernelError> {
        match std::env::var_os("SD_KERNELS") {
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

    /// f32 values in a vector of this set.
    pub(crate) fn lanes(self) -> usize {
        match self.vectors {
            KernelSet::Scalar => Portable::LANES,
            KernelSet::Avx2 => 8,
            KernelSet::Avx512 | KernelSet::Amx => 16,
        }
    }

    /// Rows of the largest f32 matrix tile.
    pub(crate) fn tile_rows(self) -> usize {
        match self.vectors {
            KernelSet::Scalar => Portable::MR,
            KernelSet::Avx2 => 6,
            KernelSet::Avx512 | KernelSet::Amx => 12,
        }
    }

    /// Runs `kernel` compiled for this set.
    #[inline]
    pub(crate) fn dispatch<K: Kernel>(self, kernel: K) -> K::Out {
        match self.vectors {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a Kernels of this set exists only after `unavailable` found AVX2 and FMA.
            KernelSet::Avx2 => unsafe { run_avx2(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a Kernels of these sets exists only after `unavailable` found AVX-512 F, BW, DQ and VL.
            KernelSet::Avx512 | KernelSet::Amx => unsafe { run_avx512(kernel) },
            _ => kernel.run(Portable),
        }
    }
}

/// # Safety
/// The processor has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Out {
    // SAFETY: the caller's promise.
    kernel.run(unsafe { crate::simd::avx2::Avx2::assume() })
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Out {
    // SAFETY: the caller's promise.
    kernel.run(unsafe { crate::simd::avx512::Avx512::assume() })
}

/// Why `set` cannot run here, if so.
fn unavailable(set: KernelSet) -> Option<String> {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        match set {
            KernelSet::Scalar => None,
            KernelSet::Avx2 => (!avx2).then(|| "the processor has no AVX2 with FMA".into()),
            KernelSet::Avx512 => {
                (!(avx2 && avx512)).then(|| "the processor has no AVX-512 F, BW, DQ and VL".into())
            }
            KernelSet::Amx if !(avx2 && avx512) => {
                Some("AMX is used beside AVX-512 F, BW, DQ and VL, which the processor lacks".into())
            }
            KernelSet::Amx => crate::amx::unavailable().map(str::to_owned),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    match set {
        KernelSet::Scalar => None,
        _ => Some("it is an x86-64 instruction set".into()),
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
        sets: KernelSet::ALL.into_iter().map(|set| (set, unavailable(set))).collect(),
        warning: warning.clone(),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(warning) = &self.warning {
            writeln!(f, "warning: SD_KERNELS was not followed: {warning}")?;
        }
        write!(f, "kernels: {}", self.active)?;
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
