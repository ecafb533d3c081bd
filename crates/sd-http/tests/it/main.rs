//! The HTTP face, over real sockets and without.

// clippy.toml allows it in tests; this extends it to what the tests share.
#![allow(clippy::unwrap_used)]

mod a1111;
mod auth;
mod bad_input;
mod body_limits;
mod connections;
mod cors;
mod forms;
#[path = "../../../sd-engine/tests/it/generator.rs"]
mod generator;
mod images;
mod jobs;
mod keeping;
mod lifecycle;
mod listeners;
mod models;
mod observability;
mod openai;
mod openapi;
mod protocol;
mod scopes;
mod stream;
mod support;
mod tls;
mod wait;
