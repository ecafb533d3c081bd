//! One suite for every kernel set: each kernel against a naive reference, and the laws that all keep.

mod attention;
mod conv;
mod elementwise;
mod laws;
mod linear;
mod norm;
mod reference;
mod selection;
mod support;
