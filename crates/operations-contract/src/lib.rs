//! The wire contract of sd-worker: operations, validation, events, errors.
