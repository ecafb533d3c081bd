//! One suite for every kernel set: each kernel against a naive reference, and the laws that all keep.

// Helpers outside of #[test] functions fail by panicking too.
#![allow(clippy::unwrap_used)]

mod attention;
mod conv;
mod elementwise;
mod everything;
mod laws;
mod linear;
mod norm;
mod reference;
mod selection;
mod support;
mod winograd;
