//! The contract, held against its description.

// clippy.toml allows it in tests; this extends it to what the tests share.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod round_trip;
#[cfg(feature = "schema")]
mod schema;
mod upscale;
mod wire;
