//! What can go wrong when a kernel is asked for or called.

use crate::KernelSet;

/// A kernel that cannot run, or was called with slices that do not fit its shape.
///
/// Outputs are untouched when a kernel returns an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A slice or a dimension has the wrong size.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// The argument, in words.
        what: &'static str,
        /// The size that fits (a minimum for strided views).
        expected: usize,
        /// The size that was given.
        found: usize,
    },
    /// The shape is legal but no kernel covers it.
    #[error("unsupported: {0}")]
    Unsupported(&'static str),
    /// `SD_KERNELS` names no kernel set.
    #[error("unknown kernel set {0:?}: expected scalar, avx2, avx512 or amx")]
    UnknownSet(String),
    /// The kernel set exists, but not on this machine.
    #[error("the {set} kernels cannot run here: {reason}")]
    Unavailable {
        /// The set that was asked for.
        set: KernelSet,
        /// Which feature is missing, in words.
        reason: String,
    },
}

/// Checks that `found` is `expected`.
pub(crate) fn expect(what: &'static str, expected: usize, found: usize) -> Result<(), KernelError> {
    if expected == found { Ok(()) } else { Err(KernelError::Shape { what, expected, found }) }
}

/// Checks that `found` is at least `expected`.
pub(crate) fn expect_at_least(what: &'static str, expected: usize, found: usize) -> Result<(), KernelError> {
    if found >= expected { Ok(()) } else { Err(KernelError::Shape { what, expected, found }) }
}
