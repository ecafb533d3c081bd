//! The contract, held against its description.

mod bad_input;
mod round_trip;
mod upscale;
mod wire;
