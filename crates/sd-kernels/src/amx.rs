//! AMX: asking the processor and the kernel for matrix tiles.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

/// Why AMX cannot be used, if so.
pub(crate) fn unavailable() -> Option<&'static str> {
    Some("not used by this version")
}
