//! What each route takes and answers.

use operations_contract::{
    CancelView, ErrorBody, JobEvent, JobList, JobView, ModelList, ModelView, Operation, Submitted,
};
use serde_json::{Map, Value, json};

use super::form::JobForm;
use super::{Schemas, parameters};
use crate::openai::views as openai;
use crate::views::{Health, Info, Ready};
use crate::wait::FinishedJob;

/// All routes. Each answers `GET` also as `HEAD`, which OpenAPI leaves unsaid.
pub(super) fn all(schemas: &Schemas) -> Map<String, Value> {
    let mut paths = Map::new();
    for (path, item) in [
        ("/v1/jobs", jobs(schemas)),
        ("/v1/jobs/{id}", job(schemas)),
        ("/v1/jobs/{id}/stream", stream(schemas)),
        ("/v1/jobs/{id}/images/{index}", image(schemas)),
        ("/v1/models", models(schemas)),
        ("/v1/models/{id}", model(schemas)),
        ("/v1/models/{id}/load", swap(schemas, "loadModel", "Loads a model ahead of its first job")),
        ("/v1/models/{id}/unload", swap(schemas, "unloadModel", "Lets go of a model's memory")),
        ("/v1/info", info(schemas)),
        ("/health", health(schemas)),
        ("/ready", ready(schemas)),
        ("/openapi.json", openapi()),
        ("/metrics", metrics(schemas)),
    ] {
        paths.insert(path.into(), item);
    }
    paths
}

fn jobs(schemas: &Schemas) -> Value {
    let submitted = json!({
        "description": "The job exists.",
        "headers": {"Location": {"description": "The job.", "schema": {"type": "string"}}},
        "content": json_of(schemas.of::<Submitted>()),
        "links": {
            "job": {"operationId": "showJob", "parameters": {"id": "$response.body#/job_id"}},
            "cancel": {"operationId": "cancelJob", "parameters": {"id": "$response.body#/job_id"}},
        },
    });
    let busy = retry(schemas, "Too many jobs wait already.");
    let down = retry(schemas, "No model can serve (yet), or the worker is going down.");
    let finished = json!({
        "description": "With `wait`: the job is over, and this is what `Accept` asks for.",
        "headers": {
            "Location": {"description": "The job.", "schema": {"type": "string"}},
            "X-Job-Id": {"description": "The job's name.", "schema": {"type": "string"}},
            "X-Seed": {"description": "Of a picture: its seed.", "schema": {"type": "integer", "minimum": 0}},
        },
        "content": {
            "application/json": {"schema": schemas.of::<FinishedJob>()},
            "image/png": bytes(),
            "image/jpeg": bytes(),
            "image/webp": bytes(),
        },
    });
    json!({
        "get": {
            "operationId": "listJobs",
            "summary": "The jobs that the worker remembers",
            "parameters": parameters::of_list(),
            "responses": answers(schemas, [("200", good("A page of them.", schemas.of::<JobList>()))], &[BAD, DENIED]),
        },
        "post": {
            "operationId": "submitJob",
            "summary": "Submits a job",
            "parameters": parameters::of_submission(),
            "requestBody": {
                "required": true,
                "content": {
                    "application/json": {
                        "schema": schemas.of::<Operation>(),
                        "example": {"operation": "image_generation", "prompt": "a red circle on green grass", "steps": 20},
                    },
                    "multipart/form-data": JobForm::media_type(schemas),
                },
            },
            "responses": answers(
                schemas,
                [("200", finished), ("202", submitted), ("429", busy), ("503", down)],
                &[BAD, DENIED, FORBIDDEN, NO_MODEL, SLOW, CANCELLED, LARGE, NOT_JSON, UNSUPPORTED, FAILED, NO_ROOM],
            ),
        },
    })
}

fn job(schemas: &Schemas) -> Value {
    let ended = good("It waited, and is cancelled.", schemas.of::<CancelView>());
    let ending = good("It runs, and ends before its next step.", schemas.of::<CancelView>());
    json!({
        "parameters": [job_id()],
        "get": {
            "operationId": "showJob",
            "summary": "One job",
            "responses": answers(schemas, [("200", good("The job.", schemas.of::<JobView>()))], &[DENIED, NO_JOB]),
        },
        "delete": {
            "operationId": "cancelJob",
            "summary": "Cancels a job",
            "responses": answers(schemas, [("200", ended), ("202", ending)], &[DENIED, FORBIDDEN, NO_JOB, OVER]),
        },
    })
}

fn stream(schemas: &Schemas) -> Value {
    // What stands in `data` cannot be said in a schema: JSON, save for the last.
    let event = json!({
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "Counts from 1; absent on the terminator."},
            "data": {"type": "string", "x-event": schemas.of::<JobEvent>()},
        },
    });
    let events = json!({
        "description": "Server-sent events, each of this form: `data` is a JobEvent. After the last comes one bare terminator: \
            `[DONE]`, `[ERROR] message` or `[CANCELLED]`, and an id beyond all events, without data.",
        "content": {"text/event-stream": {"schema": event}},
    });
    let all = json!({"description": "The job is over, and the client has heard all of it: `EventSource` stops here."});
    json!({
        "parameters": [job_id()],
        "get": {
            "operationId": "streamJob",
            "summary": "What happens to a job, from the beginning until its end",
            "parameters": [{
                "name": "Last-Event-ID",
                "in": "header",
                "description": "Resumes after this event.",
                "schema": {"type": "integer", "minimum": 0, "maximum": u64::MAX},
            }],
            "responses": answers(schemas, [("200", events), ("204", all)], &[BAD, DENIED, NO_JOB]),
        },
    })
}

fn image(schemas: &Schemas) -> Value {
    let file = json!({
        "description": "The file.",
        "headers": {"ETag": {"schema": {"type": "string"}}},
        "content": {"image/png": bytes(), "image/jpeg": bytes(), "image/webp": bytes()},
    });
    let known = json!({"description": "The client has it already."});
    json!({
        "parameters": [
            job_id(),
            {
                "name": "index",
                "in": "path",
                "required": true,
                "description": "Counts from 0.",
                "schema": {"type": "integer", "minimum": 0},
            },
        ],
        "get": {
            "operationId": "jobImage",
            "summary": "One image of a finished job",
            "responses": answers(schemas, [("200", file), ("304", known)], &[DENIED, NO_JOB]),
        },
    })
}

fn models(schemas: &Schemas) -> Value {
    let models = match schemas.faces.openai {
        true => schemas.of::<openai::Models>(),
        false => schemas.of::<ModelList>(),
    };
    json!({
        "get": {
            "operationId": "listModels",
            "summary": "The models and what they can do",
            "responses": answers_in(&of_models(schemas), [("200", good("The models.", models))], &[DENIED]),
        },
    })
}

fn model(schemas: &Schemas) -> Value {
    let model = match schemas.faces.openai {
        true => schemas.of::<openai::Model>(),
        false => schemas.of::<ModelView>(),
    };
    json!({
        "parameters": [model_id()],
        "get": {
            "operationId": "showModel",
            "summary": "One model",
            "responses": answers_in(&of_models(schemas), [("200", good("The model.", model))], &[DENIED, NO_MODEL]),
        },
    })
}

fn swap(schemas: &Schemas, operation: &str, summary: &str) -> Value {
    let error = of_models(schemas);
    let done = good("It is so already.", schemas.of::<ModelView>());
    let going = good("It happens as soon as nothing runs.", schemas.of::<ModelView>());
    let not_ready = retry_in(&error, "The worker is not ready.");
    json!({
        "parameters": [model_id()],
        "post": {
            "operationId": operation,
            "summary": summary,
            "responses": answers_in(
                &error,
                [("200", done), ("202", going), ("503", not_ready)],
                &[DENIED, FORBIDDEN, NO_MODEL, UNSUPPORTED],
            ),
        },
    })
}

fn metrics(schemas: &Schemas) -> Value {
    let text =
        json!({"description": "For Prometheus.", "content": {"text/plain": {"schema": {"type": "string"}}}});
    json!({
        "get": {
            "operationId": "metrics",
            "summary": "What the worker measures",
            "responses": answers(schemas, [("200", text)], &[DENIED, NO_METRICS]),
        },
    })
}

fn info(schemas: &Schemas) -> Value {
    json!({
        "get": {
            "operationId": "info",
            "summary": "The worker: version, device, limits",
            "responses": answers(schemas, [("200", good("The worker.", schemas.of::<Info>()))], &[DENIED]),
        },
    })
}

fn health(schemas: &Schemas) -> Value {
    json!({
        "get": {
            "operationId": "health",
            "summary": "Whether the process lives",
            "security": [],
            "responses": answers(schemas, [("200", good("Always.", schemas.of::<Health>()))], &[]),
        },
    })
}

fn ready(schemas: &Schemas) -> Value {
    let not_yet = retry(schemas, "No model can serve (yet), or the worker is going down.");
    json!({
        "get": {
            "operationId": "ready",
            "summary": "Whether a model can serve",
            "security": [],
            "responses": answers(
                schemas,
                [("200", good("One can.", schemas.of::<Ready>())), ("503", not_yet)],
                &[],
            ),
        },
    })
}

fn openapi() -> Value {
    json!({
        "get": {
            "operationId": "openapi",
            "summary": "This document",
            "security": [],
            "responses": {"200": good("The document.", json!({"type": "object"}))},
        },
    })
}

/// The form of errors about models: OpenAI's clients read them too.
fn of_models(schemas: &Schemas) -> Value {
    match schemas.faces.openai {
        true => schemas.of::<openai::ErrorBody>(),
        false => schemas.of::<ErrorBody>(),
    }
}

/// A status that every route with the same cause tells in the same way.
pub(super) type Refusal = (&'static str, &'static str);

pub(super) const BAD: Refusal = ("400", "The request is broken; `fields` says where.");
pub(super) const DENIED: Refusal = ("401", "No token, or a wrong one.");
pub(super) const FORBIDDEN: Refusal = ("403", "The token lacks the scope, or a page of another origin asks.");
const NO_JOB: Refusal = ("404", "There is no such job or image, or no more.");
pub(super) const NO_MODEL: Refusal = ("404", "There is no such model here.");
const NO_METRICS: Refusal = ("404", "This worker keeps none.");
pub(super) const SLOW: Refusal = ("408", "The body took too long to arrive, or the job passed its deadline.");
pub(super) const CANCELLED: Refusal = ("409", "Whoever waited for the job learns that it was cancelled.");
const OVER: Refusal = ("409", "The job is already over.");
pub(super) const LARGE: Refusal = ("413", "The body is larger than allowed.");
pub(super) const NOT_JSON: Refusal = ("415", "The body is not declared as what is taken here.");
pub(super) const UNSUPPORTED: Refusal = (
    "422",
    "Nothing is broken, but the model cannot do it, or the `Idempotency-Key` came with another request.",
);
pub(super) const FAILED: Refusal = ("500", "The worker's fault.");
pub(super) const NO_ROOM: Refusal =
    ("507", "There is no room to write the job down, or the model can never fit into the memory.");

fn answers<const N: usize>(schemas: &Schemas, own: [(&str, Value); N], refusals: &[Refusal]) -> Value {
    answers_in(&schemas.of::<ErrorBody>(), own, refusals)
}

/// Answers with errors of this form.
pub(super) fn answers_in<const N: usize>(
    error: &Value,
    own: [(&str, Value); N],
    refusals: &[Refusal],
) -> Value {
    let mut answers: Map<String, Value> =
        own.into_iter().map(|(status, answer)| (status.into(), answer)).collect();
    for (status, description) in refusals {
        answers.insert((*status).into(), good(description, error.clone()));
    }
    Value::Object(answers)
}

pub(super) fn good(description: &str, schema: Value) -> Value {
    json!({"description": description, "content": json_of(schema)})
}

fn retry(schemas: &Schemas, description: &str) -> Value {
    retry_in(&schemas.of::<ErrorBody>(), description)
}

/// An error of this form that passes.
pub(super) fn retry_in(error: &Value, description: &str) -> Value {
    json!({
        "description": description,
        "headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}},
        "content": json_of(error.clone()),
    })
}

/// The file of a picture.
fn bytes() -> Value {
    json!({"schema": {"type": "string", "contentMediaType": "application/octet-stream"}})
}

fn json_of(schema: Value) -> Value {
    json!({"application/json": {"schema": schema}})
}

fn job_id() -> Value {
    json!({
        "name": "id",
        "in": "path",
        "required": true,
        "description": "The job's name.",
        "schema": {"type": "string", "minLength": 1},
    })
}

fn model_id() -> Value {
    json!({
        "name": "id",
        "in": "path",
        "required": true,
        "description": "Its name in requests; it may hold slashes.",
        "schema": {"type": "string", "minLength": 1},
    })
}
