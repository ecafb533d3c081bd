//! What `GET /v1/jobs` and `POST /v1/jobs` take beside a body.

use operations_contract::{JobState, OperationKind};
use serde_json::{Value, json};

use crate::handlers::list_jobs::{LIMIT, LIMITS};
use crate::{idempotency, trace};

/// The filters and pages of `GET /v1/jobs`.
pub(super) fn of_list() -> Value {
    let states: Vec<&str> = JobState::ALL.iter().map(|state| state.as_str()).collect();
    let operations: Vec<&str> = OperationKind::ALL.iter().map(|kind| kind.as_str()).collect();
    let query = |name: &str, description: &str, schema: Value| json!({"name": name, "in": "query", "description": description, "schema": schema});
    let time = || json!({"type": "integer", "minimum": 0, "maximum": u64::MAX});
    let limit =
        json!({"type": "integer", "minimum": LIMITS.start(), "maximum": LIMITS.end(), "default": LIMIT});
    let mut state = query(
        "state",
        "In one of these states.",
        json!({"type": "array", "minItems": 1, "items": {"type": "string", "enum": states}}),
    );
    state["explode"] = json!(false);
    json!([
        state,
        query("operation", "Of this operation.", json!({"type": "string", "enum": operations})),
        query("model", "For this model.", json!({"type": "string"})),
        query("since_ms", "Accepted then or later: milliseconds since 1970.", time()),
        query("until_ms", "Accepted before: milliseconds since 1970.", time()),
        query(
            "order",
            "Which ones first, by acceptance.",
            json!({"type": "string", "enum": ["oldest", "newest"], "default": "oldest"}),
        ),
        query("limit", "How many at most.", limit),
        query("cursor", "`next_cursor` of the answer before.", time()),
    ])
}

/// A parameter that is on or off.
pub(super) fn flag(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": {"type": "boolean", "default": false}})
}

/// The synchronous form of `POST /v1/jobs`, and its headers.
pub(super) fn of_submission() -> Value {
    let wait = flag("wait", "Answers when the job is over, with the job or the picture, by `Accept`.");
    let images = flag("images", "With `wait`: the job holds its pictures, as base64.");
    json!([wait, images, idempotency_key(), {
        "name": trace::NAME,
        "in": "header",
        "description": "The trace that the job becomes a part of (W3C Trace Context); any other value is ignored.",
        "schema": {"type": "string"},
    }])
}

/// The name by which a request may be sent again.
pub(super) fn idempotency_key() -> Value {
    json!({
        "name": idempotency::NAME,
        "in": "header",
        "description": "A name of the client's choice: the same request under it is the same job.",
        "schema": {"type": "string", "minLength": 1, "maxLength": idempotency::MAX_CHARS, "pattern": "^[!-~]+$"},
    })
}
