//! The routes of A1111's API, from the table by which they are answered.

use serde_json::{Map, Value, json};

use super::paths::{
    BAD, CANCELLED, DENIED, FAILED, FORBIDDEN, LARGE, NO_MODEL, NO_ROOM, NOT_JSON, Refusal, SLOW,
    UNSUPPORTED, answers_in, good, retry_in,
};
use super::{Schemas, parameters};
use crate::a1111::schema::{Enlarge, Img2Img, Picture, Settings, Txt2Img};
use crate::a1111::views::{
    Embeddings, Enlarged, LatentUpscaler, Lora, Model, Options, Pictures, PngInfo, Progress,
    Refusal as Error, Sampler, Scheduler, Scripts, Upscaler,
};
use crate::a1111::{CALLS, Call, Kind, List};

/// A picture of 16 by 16 pixels, grey.
pub(crate) const PICTURE: &str = "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAFElEQVR42mNoIBEwjGoY1TB8NQAAJYSAELxv8c8AAAAASUVORK5CYII=";
const PROMPT: &str = "a red circle on green grass";

pub(super) fn paths(schemas: &Schemas) -> Map<String, Value> {
    let item = |(name, call): &(&str, Call)| (format!("/sdapi/v1/{name}"), item(schemas, name, *call));
    CALLS.iter().map(item).collect()
}

fn item(schemas: &Schemas, name: &str, call: Call) -> Value {
    let error = schemas.of::<Error>();
    let plain: &[Refusal] = &[DENIED, FORBIDDEN];
    let with_body: &[Refusal] = &[BAD, DENIED, FORBIDDEN, SLOW, LARGE, NOT_JSON];
    let operation = |summary: &str, answer: Value, refusals: &[Refusal]| {
        json!({
            "operationId": format!("sdapi.{name}"),
            "summary": summary,
            "security": [{"bearer": []}, {"basic": []}],
            "responses": answers_in(&error, [("200", good("Done.", answer))], refusals),
        })
    };
    let with = |mut operation: Value, schema: Value, example: Value| {
        operation["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": schema, "example": example}}});
        operation
    };
    let draw = |answer: Value| {
        let refusals: Vec<Refusal> =
            with_body.iter().copied().chain([NO_MODEL, CANCELLED, UNSUPPORTED, FAILED, NO_ROOM]).collect();
        let mut draw = operation("Draws; the answer comes when the job is over", answer, &refusals);
        draw["parameters"] = json!([parameters::idempotency_key()]);
        let answers = &mut draw["responses"];
        answers["429"] = retry_in(&error, "Too many jobs wait already.");
        answers["503"] = retry_in(&error, "No model can serve (yet), or the worker is going down.");
        draw
    };
    match call {
        Call::Generate(Kind::Txt2Img) => {
            let example = json!({"prompt": PROMPT, "seed": 7, "steps": 4});
            json!({"post": with(draw(schemas.of::<Pictures>()), schemas.of::<Txt2Img>(), example)})
        }
        Call::Generate(Kind::Img2Img) => {
            let example = json!({"prompt": PROMPT, "init_images": [PICTURE], "seed": 7, "steps": 4});
            json!({"post": with(draw(schemas.of::<Pictures>()), schemas.of::<Img2Img>(), example)})
        }
        Call::Enlarge => {
            let example = json!({"image": PICTURE, "upscaler_1": "Network"});
            json!({"post": with(draw(schemas.of::<Enlarged>()), schemas.of::<Enlarge>(), example)})
        }
        Call::Progress => {
            let mut progress =
                operation("How far the caller's job is", schemas.of::<Progress>(), &[BAD, DENIED, FORBIDDEN]);
            progress["parameters"] =
                json!([parameters::flag("skip_current_image", "Leaves out the preview.")]);
            json!({"get": progress})
        }
        Call::Interrupt => {
            json!({"post": operation("Cancels the caller's job", json!({"type": "object"}), plain)})
        }
        Call::Refresh => {
            json!({"post": operation("Does nothing: the lists are never out of date", null(), plain)})
        }
        Call::Options => {
            let show = operation("The caller's settings", schemas.of::<Options>(), plain);
            let refusals: Vec<Refusal> = with_body.iter().copied().chain([NO_MODEL]).collect();
            let mut set = operation("Changes the caller's settings", null(), &refusals);
            set["operationId"] = "sdapi.set-options".into();
            json!({"get": show, "post": with(set, schemas.of::<Settings>(), json!({"samples_format": "png"}))})
        }
        Call::PngInfo => {
            let read = operation("What a picture tells about its making", schemas.of::<PngInfo>(), with_body);
            json!({"post": with(read, schemas.of::<Picture>(), json!({"image": PICTURE}))})
        }
        Call::List(list) => {
            json!({"get": operation("What there is to choose from", listed(schemas, list), plain)})
        }
    }
}

fn listed(schemas: &Schemas, list: List) -> Value {
    let of = |entry: Value| json!({"type": "array", "items": entry});
    match list {
        List::Samplers => of(schemas.of::<Sampler>()),
        List::Schedulers => of(schemas.of::<Scheduler>()),
        List::SdModels => of(schemas.of::<Model>()),
        List::Loras => of(schemas.of::<Lora>()),
        List::Upscalers => of(schemas.of::<Upscaler>()),
        List::LatentUpscaleModes => of(schemas.of::<LatentUpscaler>()),
        List::Embeddings => schemas.of::<Embeddings>(),
        List::Scripts => schemas.of::<Scripts>(),
        List::Empty => json!({"type": "array", "maxItems": 0}),
    }
}

fn null() -> Value {
    json!({"type": "null"})
}
