//! One file for each route and method.

pub(crate) mod cancel_job;
pub(crate) mod health;
pub(crate) mod info;
pub(crate) mod job_image;
pub(crate) mod list_jobs;
pub(crate) mod list_models;
pub(crate) mod metrics;
pub(crate) mod openapi;
pub(crate) mod ready;
pub(crate) mod show_job;
pub(crate) mod show_model;
pub(crate) mod stream_job;
pub(crate) mod submit_job;
pub(crate) mod swap_model;
