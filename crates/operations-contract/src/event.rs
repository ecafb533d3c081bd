//! What a job tells while it lives, and the word that ends its stream.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{ErrorCode, ErrorDetail};
use crate::image_data::ImageData;
use crate::names::ImageFormat;

/// One event of a job: `data:` of one server-sent event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum JobEvent {
    /// Accepted; so many jobs go first.
    Queued {
        /// 0: next.
        position: usize,
    },
    /// The engine has taken it up; what the request left open is now told.
    Started {
        /// The model that draws.
        model: String,
        /// Seed of the first image.
        seed: u64,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Steps asked for.
        steps: u32,
    },
    /// A step is done.
    Progress {
        /// Steps done.
        step: u32,
        /// Steps to do in all.
        total_steps: u32,
        /// `100 * step / total_steps`.
        percent: f64,
        /// Milliseconds since it started.
        elapsed_ms: u64,
        /// Milliseconds that the remaining steps will take, by the pace so far.
        eta_ms: u64,
    },
    /// A picture on the way.
    Preview {
        /// After this step.
        step: u32,
        /// The picture.
        image: ImageData,
        /// Its file format.
        format: ImageFormat,
    },
    /// Something worth knowing: a size that was snapped, a step repeated in f32.
    Narration {
        /// How much it matters.
        level: NarrationLevel,
        /// For people.
        message: String,
    },
    /// Done.
    Complete {
        /// The images, in the order of their seeds.
        images: Vec<EventImage>,
        /// Milliseconds since it started.
        elapsed_ms: u64,
        /// Where they went.
        timings: Timings,
    },
    /// It ended without images.
    Error(ErrorDetail),
}

impl JobEvent {
    /// An error without fields.
    pub fn error(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Error(ErrorDetail::new(code, message))
    }
}

/// How much a narration matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NarrationLevel {
    /// Good to know.
    Info,
    /// The result differs from what one might expect.
    Warn,
}

/// A finished image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EventImage {
    /// The file.
    pub image: ImageData,
    /// Its format.
    pub format: ImageFormat,
    /// Its own seed.
    pub seed: u64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// Where the time of a job went, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Timings {
    /// Waiting.
    pub queued_ms: u64,
    /// Encoding the prompts.
    pub text_encode_ms: u64,
    /// Encoding the picture that it started from; 0 without one.
    #[serde(default)]
    pub image_encode_ms: u64,
    /// Denoising, all steps.
    pub denoise_ms: u64,
    /// Decoding the latents.
    pub decode_ms: u64,
    /// Writing the image files.
    pub encode_ms: u64,
}

/// The bare last `data:` of a job's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Terminator {
    /// `[DONE]`
    Done,
    /// `[ERROR] message`
    Error(String),
    /// `[CANCELLED]`
    Cancelled,
}

impl fmt::Display for Terminator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("[DONE]"),
            // A line break would end the `data:` line.
            Self::Error(message) => write!(f, "[ERROR] {}", message.replace(['\r', '\n'], " ")),
            Self::Cancelled => f.write_str("[CANCELLED]"),
        }
    }
}

/// The text is no terminator: it is an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a terminator")]
pub struct NotATerminator;

impl FromStr for Terminator {
    type Err = NotATerminator;

    fn from_str(text: &str) -> Result<Self, NotATerminator> {
        match text {
            "[DONE]" => Ok(Self::Done),
            "[CANCELLED]" => Ok(Self::Cancelled),
            _ => match text.strip_prefix("[ERROR]") {
                Some(message) => Ok(Self::Error(message.trim_start().to_owned())),
                None => Err(NotATerminator),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_tagged_by_type_and_come_back() {
        let event =
            JobEvent::Started { model: "demo".into(), seed: u64::MAX, width: 64, height: 64, steps: 20 };
        let text = serde_json::to_string(&event).unwrap();
        assert!(
            text.starts_with(r#"{"type":"started","model":"demo","seed":18446744073709551615"#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<JobEvent>(&text).unwrap(), event);
    }

    #[test]
    fn error_event_has_code_and_message_beside_type() {
        let event = JobEvent::error(ErrorCode::InferenceFailed, "no");
        let value = serde_json::to_value(&event).unwrap();
        assert_eq!(value, serde_json::json!({"type": "error", "code": "inference_failed", "message": "no"}));
        assert_eq!(serde_json::from_value::<JobEvent>(value).unwrap(), event);
    }

    #[test]
    fn terminators_are_one_line_each_and_come_back() {
        for terminator in [Terminator::Done, Terminator::Error("a b".into()), Terminator::Cancelled] {
            assert_eq!(terminator.to_string().parse(), Ok(terminator));
        }
        assert_eq!(Terminator::Error("a\nb".into()).to_string(), "[ERROR] a b");
        assert_eq!("{}".parse::<Terminator>(), Err(NotATerminator));
    }
}
