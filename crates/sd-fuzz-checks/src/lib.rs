//! What must hold for any bytes that come from outside.
//!
//! One function for each way in. They panic when something does not hold; the fuzzers under `fuzz/` look for bytes that
//! make them, and `tests/replay.rs` here runs all that was ever found worth keeping.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a panic is how a finding is told")]

mod checkpoint;
mod contract;
mod picture;
mod prompt;
mod transport;

pub use checkpoint::checkpoint;
pub use contract::contract;
pub use picture::picture;
pub use prompt::prompt;
pub use transport::{multipart, sse_id};

/// A check by the name of its fuzzer.
pub type Check = (&'static str, fn(&[u8]));

/// All of them.
pub const CHECKS: &[Check] = &[
    ("contract", contract),
    ("prompt", prompt),
    ("sse_id", sse_id),
    ("multipart", multipart),
    ("checkpoint", checkpoint),
    ("picture", picture),
];
