//! The wire contract of sd-worker: operations, validation, events, errors.
//!
//! Everything that travels between a client and a worker is a type of this crate: the [`Operation`]s, the
//! [`JobEvent`]s that a job emits and the [`Terminator`] that ends them, the [`JobView`]s and [`ModelCapabilities`]
//! that a worker reports, and the one form in which an [`ErrorBody`] is told. The crate knows neither tokio nor
//! tensors and builds for the browser.
//!
//! An operation is parsed, not parsed and then validated: what comes out of [`Operation::from_json`] is inside all
//! bounds, and what does not is told with every broken field at once.
//!
//! ```
//! use operations_contract::{Operation, Sampler};
//! use serde_json::json;
//!
//! let operation = Operation::from_json(&json!({
//!     "operation": "image_generation",
//!     "prompt": "a red circle on green grass",
//!     "sampler": "euler_a",
//! }))?;
//! assert_eq!(operation.common().and_then(|common| common.sampler), Some(Sampler::EulerA));
//!
//! let refused = Operation::from_json(&json!({
//!     "operation": "image_generation",
//!     "prompt": 7,
//!     "steps": 0,
//!     "colour": "red",
//! }))
//! .unwrap_err();
//! let broken: Vec<&str> = refused.fields().iter().map(|f| f.field.as_str()).collect();
//! assert_eq!(broken, ["prompt", "steps", "colour"]);
//! # Ok::<(), operations_contract::InvalidOperation>(())
//! ```

pub mod bounds;
mod error;
mod event;
mod fields;
mod form;
mod image_data;
mod job;
mod model;
mod names;
mod operation;
mod parse;
mod pictures;
mod registration;
mod request;
#[cfg(feature = "schema")]
mod schema;
mod upscale;
mod validate;

pub use error::{ErrorBody, ErrorCode, ErrorDetail, FieldError, InvalidOperation};
pub use event::{EventImage, JobEvent, NarrationLevel, NotATerminator, Terminator, Timings};
pub use form::field_of_form;
pub use image_data::{ImageData, ImageDataError};
pub use job::{CancelView, ImageView, JobId, JobList, JobProgress, JobState, JobView, Submitted};
pub use model::{Feature, ModelCapabilities, ModelList, ModelState, ModelView, UpscaleModel};
pub use names::{
    ImageFormat, OperationKind, Preprocessor, PreviewMethod, Priority, RngKind, Sampler, Schedule,
    TimestepSpacing, UnknownName, Upscaler,
};
pub use operation::{JobFields, Operation, ParsedOperation};
pub use registration::{Heartbeat, HeartbeatAnswer, WorkerInfo, WorkerStatus};
pub use request::{
    Common, Control, Extend, GuidanceInterval, Hires, ImageGeneration, ImageInpaint, ImageTransform, Lora,
    Output, Preview, Refiner, Tiling,
};
pub use upscale::ImageUpscale;
