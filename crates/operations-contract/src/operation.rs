//! One operation: what `POST /v1/jobs`, the command line and every other way in become.

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use crate::error::{FieldError, InvalidOperation};
use crate::fields::{Faults, Fields, type_name};
use crate::names::{OperationKind, Priority};
use crate::request::{Common, ImageGeneration, ImageInpaint, ImageTransform, Output};
use crate::upscale::{self, ImageUpscale};
use crate::{parse, validate};

/// What a job is to do: on the wire, an object with a key `operation` beside the request's own fields.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub enum Operation {
    /// Text to image.
    ImageGeneration(ImageGeneration),
    /// Image and text to image.
    ImageTransform(ImageTransform),
    /// Repaints the white part of a mask.
    ImageInpaint(ImageInpaint),
    /// Enlarges a picture by a network of its own.
    ImageUpscale(ImageUpscale),
}

/// The fields of an operation that say how its job is handled: every operation has them.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct JobFields<'a> {
    /// Which model; absent: the worker's default.
    pub model: Option<&'a str>,
    /// The files that come out.
    pub output: Output,
    /// Which waiting job goes first.
    pub priority: Priority,
    /// Milliseconds from acceptance after which the job is given up; absent: none.
    pub deadline_ms: Option<u64>,
    /// Whether the job is cancelled when the last of those who follow it leaves.
    pub cancel_on_disconnect: bool,
    /// Echoed, for a router above.
    pub hive_id: Option<&'a str>,
    /// Echoed, for a router above.
    pub worker_id: Option<&'a str>,
}

impl<'a> JobFields<'a> {
    fn of(common: &'a Common) -> Self {
        Self {
            model: common.model.as_deref(),
            output: common.output,
            priority: common.priority,
            deadline_ms: common.deadline_ms,
            cancel_on_disconnect: common.cancel_on_disconnect,
            hive_id: common.hive_id.as_deref(),
            worker_id: common.worker_id.as_deref(),
        }
    }
}

/// What could be read of a request, and all that is wrong with it.
///
/// The broken fields stand at their defaults in `operation`, so that a caller who knows more (the model, say) can
/// look for further faults and tell them all in one answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedOperation {
    /// Absent where not even the kind of operation is known.
    pub operation: Option<Operation>,
    /// Empty when the operation is valid.
    pub faults: Vec<FieldError>,
}

impl Operation {
    /// Text to image with everything as the model has it.
    pub fn generate(prompt: impl Into<String>) -> Self {
        Self::ImageGeneration(ImageGeneration {
            common: Common { prompt: prompt.into(), ..Common::default() },
        })
    }

    /// Reads an operation, or tells every broken field.
    pub fn from_json(value: &Value) -> Result<Self, InvalidOperation> {
        match Self::parse(value) {
            ParsedOperation { operation: Some(operation), faults } if faults.is_empty() => Ok(operation),
            ParsedOperation { faults, .. } => Err(InvalidOperation::new(faults)),
        }
    }

    /// Reads as much of an operation as can be read.
    pub fn parse(value: &Value) -> ParsedOperation {
        let mut faults = Faults::default();
        let operation = read(value, &mut faults);
        ParsedOperation { operation, faults: faults.into_vec() }
    }

    /// Checks an operation that was made by hand, by the same bounds.
    pub fn validate(&self) -> Result<(), InvalidOperation> {
        let mut faults = Faults::default();
        validate::operation(self, &mut faults);
        match faults.into_vec() {
            faults if faults.is_empty() => Ok(()),
            faults => Err(InvalidOperation::new(faults)),
        }
    }

    /// Which of them it is.
    pub fn kind(&self) -> OperationKind {
        match self {
            Self::ImageGeneration(_) => OperationKind::ImageGeneration,
            Self::ImageTransform(_) => OperationKind::ImageTransform,
            Self::ImageInpaint(_) => OperationKind::ImageInpaint,
            Self::ImageUpscale(_) => OperationKind::ImageUpscale,
        }
    }

    /// The fields that every operation has which draws: `None` for an upscale.
    pub fn common(&self) -> Option<&Common> {
        match self {
            Self::ImageGeneration(request) => Some(&request.common),
            Self::ImageTransform(request) => Some(&request.common),
            Self::ImageInpaint(request) => Some(&request.common),
            Self::ImageUpscale(_) => None,
        }
    }

    /// The fields that every operation has which draws: `None` for an upscale.
    pub fn common_mut(&mut self) -> Option<&mut Common> {
        match self {
            Self::ImageGeneration(request) => Some(&mut request.common),
            Self::ImageTransform(request) => Some(&mut request.common),
            Self::ImageInpaint(request) => Some(&mut request.common),
            Self::ImageUpscale(_) => None,
        }
    }

    /// The fields that say how the job is handled.
    pub fn job(&self) -> JobFields<'_> {
        match self {
            Self::ImageGeneration(request) => JobFields::of(&request.common),
            Self::ImageTransform(request) => JobFields::of(&request.common),
            Self::ImageInpaint(request) => JobFields::of(&request.common),
            Self::ImageUpscale(request) => JobFields {
                model: request.model.as_deref(),
                output: request.output,
                priority: request.priority,
                deadline_ms: request.deadline_ms,
                cancel_on_disconnect: request.cancel_on_disconnect,
                hive_id: request.hive_id.as_deref(),
                worker_id: request.worker_id.as_deref(),
            },
        }
    }
}

fn read(value: &Value, faults: &mut Faults) -> Option<Operation> {
    let Some(map) = value.as_object() else {
        let message = format!("must be a JSON object, not {}", type_name(value));
        faults.push(FieldError::new("body", message));
        return None;
    };
    let mut fields = Fields::new(map, String::new(), faults);
    if fields.take("operation").is_none() {
        fields.missing("operation");
        return None;
    }
    let kind: OperationKind = fields.name("operation")?;
    let operation = match kind {
        OperationKind::ImageGeneration => Operation::ImageGeneration(parse::generation(&mut fields)),
        OperationKind::ImageTransform => Operation::ImageTransform(parse::transform(&mut fields)),
        OperationKind::ImageInpaint => Operation::ImageInpaint(parse::inpaint(&mut fields)),
        OperationKind::ImageUpscale => Operation::ImageUpscale(upscale::read(&mut fields)),
    };
    fields.check(|faults| validate::operation(&operation, faults));
    fields.refuse_rest(kind.as_str());
    Some(operation)
}

impl<'de> Deserialize<'de> for Operation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_json(&Value::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
