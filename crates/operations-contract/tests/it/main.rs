//! The contract, held against its description.

mod bad_input;
mod round_trip;
#[cfg(feature = "schema")]
mod schema;
mod upscale;
mod wire;
