//! Prompts that are too long for the model are refused before there is a job, whether the model is loaded or not.
#![allow(clippy::unwrap_used)]

#[path = "support/service.rs"]
mod service;

use sd_inference::prompt::resolve_wildcards;
use serde_json::{Value, json};

use service::Service;

/// SDXL with two text encoders, at a size for tests.
const SECOND: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/sdxl/model");

fn request(fields: &Value) -> Value {
    let mut request =
        json!({"operation": "image_generation", "prompt": "a circle", "width": 64, "height": 64, "steps": 1});
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    request
}

fn refused(answer: (u16, Value), field: &str) {
    let (status, body) = answer;
    assert_eq!((status, &body["error"]["code"]), (400, &json!("invalid_request")), "{body}");
    let fault = &body["error"]["fields"][0];
    assert_eq!(fault["field"], field, "{body}");
    let has = |key: &str, part: &str| fault[key].as_str().unwrap().contains(part);
    assert!(has("value", " chunks") && has("limit", "at most 32 chunks of "), "{body}");
}

#[test]
fn what_is_too_long_becomes_no_job() {
    let service = Service::start(&["--model", "demo", "--model", SECOND]);
    let (many, broken) = ("a ".repeat(5000), "BREAK ".repeat(1600));
    for (field, text) in [
        ("prompt", "é".repeat(10_000)),
        ("prompt", many.clone()),
        ("prompt", broken),
        ("negative_prompt", many),
    ] {
        refused(service.submit(&request(&json!({field: text}))), field);
    }
    // Both are told at once.
    let both = request(&json!({"prompt": "a ".repeat(5000), "negative_prompt": "b ".repeat(5000)}));
    assert_eq!(service.submit(&both).1["error"]["fields"].as_array().unwrap().len(), 2);
    // As they are, they are cut.
    let (status, body) =
        service.submit(&request(&json!({"prompt": "a ".repeat(5000), "prompt_weighting": false})));
    assert_eq!(status, 202, "{body}");

    // What counts is what the seeds choose, of all pictures.
    let prompt = format!("{{a|{}}}", "b ".repeat(4000));
    let mut statuses = Vec::new();
    for seed in 0..6 {
        let (status, body) =
            service.submit(&request(&json!({"prompt": prompt, "seed": seed, "num_images": 2})));
        let long = (seed..seed + 2).any(|seed| resolve_wildcards(&prompt, seed).len() > 1);
        assert_eq!(status, if long { 400 } else { 202 }, "seed {seed}: {body}");
        statuses.push(status);
    }
    assert!(statuses.contains(&400) && statuses.contains(&202), "{statuses:?}");

    // The other programs' ways in.
    let (status, body) = service.send(
        "POST",
        "/v1/images/generations",
        "",
        &json!({"prompt": "a ".repeat(5000), "size": "64x64"}).to_string(),
    );
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["error"]["param"]), (400, &json!("prompt")), "{body}");
    let txt2img = json!({"prompt": "a", "negative_prompt": "a ".repeat(5000), "steps": 1}).to_string();
    let (status, body) = service.send("POST", "/sdapi/v1/txt2img", "", &txt2img);
    assert!((400..500).contains(&status) && body.contains("negative_prompt"), "{status}: {body}");
}

#[test]
fn a_model_need_not_be_loaded_for_it() {
    let service = Service::start(&["--model", "demo", "--model", SECOND]);
    for field in ["prompt", "prompt_2", "negative_prompt_2"] {
        refused(service.submit(&request(&json!({"model": SECOND, field: "a ".repeat(5000)}))), field);
    }
    let (_, models) = service.get("/v1/models");
    let models: Value = serde_json::from_str(&models).unwrap();
    let second = models["models"].as_array().unwrap().iter().find(|model| model["id"] == SECOND).unwrap();
    assert_eq!(second["state"], "unloaded", "{second}");
    let (status, body) = service.submit(&request(&json!({"model": SECOND, "prompt_2": "a ".repeat(600)})));
    assert_eq!(status, 202, "{body}");
}
