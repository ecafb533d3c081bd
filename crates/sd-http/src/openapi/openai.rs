//! The routes of OpenAI's images. Its models stand among our own.

use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use super::form::pictures;
use super::paths::{
    BAD, CANCELLED, DENIED, FAILED, FORBIDDEN, LARGE, NO_MODEL, NO_ROOM, NOT_JSON, SLOW, UNSUPPORTED,
    answers_in, retry_in,
};
use super::{Schemas, parameters};
use crate::openai::schema::{Edit, Generation, Variation};
use crate::openai::views::{ErrorBody, ErrorEvent, ImageEvent, Images};

pub(super) fn paths(schemas: &Schemas) -> Map<String, Value> {
    let example = json!({"prompt": "a red circle on green grass", "n": 1, "seed": 7, "steps": 4});
    let body = json!({"application/json": {"schema": schemas.of::<Generation>(), "example": example}});
    let mut paths = Map::new();
    for (call, id, summary, content) in [
        ("generations", "createImage", "Pictures from a prompt", body),
        (
            "edits",
            "editImage",
            "A picture repainted, in part or as a whole",
            form::<Edit>(schemas, &["image", "mask"]),
        ),
        ("variations", "varyImage", "A picture redrawn", form::<Variation>(schemas, &["image"])),
    ] {
        paths.insert(format!("/v1/images/{call}"), item(schemas, id, summary, &content));
    }
    paths
}

fn form<T: JsonSchema>(schemas: &Schemas, files: &[&str]) -> Value {
    json!({"multipart/form-data": {"schema": schemas.of::<T>(), "encoding": pictures(files)}})
}

fn item(schemas: &Schemas, id: &str, summary: &str, content: &Value) -> Value {
    let error = schemas.of::<ErrorBody>();
    // What stands in `data` is JSON.
    let event = json!({
        "type": "object",
        "properties": {
            "event": {"type": "string", "description": "`type` of the data."},
            "data": {"type": "string", "x-event": {"oneOf": [schemas.of::<ImageEvent>(), schemas.of::<ErrorEvent>()]}},
        },
    });
    let text = |about: &str| json!({"description": about, "schema": {"type": "string"}});
    let pictures = json!({
        "description": "The pictures; with `stream` server-sent events, each of this form.",
        "headers": {"Location": text("The job."), "X-Job-Id": text("The job's name.")},
        "content": {
            "application/json": {"schema": schemas.of::<Images>()},
            "text/event-stream": {"schema": event},
        },
    });
    let busy = retry_in(&error, "Too many jobs wait already.");
    let down = retry_in(&error, "No model can serve (yet), or the worker is going down.");
    json!({
        "post": {
            "operationId": id,
            "summary": summary,
            "parameters": [parameters::idempotency_key()],
            "requestBody": {"required": true, "content": content},
            "responses": answers_in(
                &error,
                [("200", pictures), ("429", busy), ("503", down)],
                &[BAD, DENIED, FORBIDDEN, NO_MODEL, SLOW, CANCELLED, LARGE, NOT_JSON, UNSUPPORTED, FAILED, NO_ROOM],
            ),
        },
    })
}
