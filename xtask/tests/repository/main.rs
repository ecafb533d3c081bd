//! Rules of the repository that no compiler checks: the layers, the accelerator features, and the files themselves.
#![allow(clippy::unwrap_used, reason = "this is a test, and its helpers are too")]

mod features;
mod files;
mod layers;
mod metadata;
