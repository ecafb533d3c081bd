//! The engine from its front door, with a generator that does as the prompt says.

// clippy.toml allows it in tests; this extends it to what the tests share.
#![allow(clippy::unwrap_used)]

mod admission;
mod batching;
mod cancel;
mod failure;
mod files;
mod generator;
mod making_way;
mod memory;
mod models;
mod previews;
mod restart;
mod retention;
mod shared_steps;
mod shutdown;
mod storage;
mod story;
mod support;
mod turns;
mod unreadable;
mod upscale;
