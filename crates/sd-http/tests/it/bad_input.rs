//! What bad input gets: 4xx with every broken field, and no job.

use serde_json::{Value, json};

use crate::support::{Answer, Worker};

async fn refused(body: Value) -> Answer {
    let worker = Worker::start().await;
    let answer = worker.post(&body).await;
    assert_eq!(worker.get("/v1/jobs").await.json(), json!({"jobs": []}));
    answer
}

async fn invalid(field: &str, value: Value) -> Value {
    let mut body = json!({"operation": "image_generation", "prompt": "a cat"});
    body[field] = value;
    let answer = refused(body).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "invalid_request"));
    assert_eq!(answer.fields(), [field]);
    answer.json()["error"]["fields"][0].clone()
}

/// An empty one is a prompt, a picture of whatever the model draws by itself; none is a mistake.
#[tokio::test]
async fn no_prompt() {
    assert_eq!(invalid("prompt", json!(null)).await, json!({"field": "prompt", "message": "is required"}));
    let worker = Worker::start().await;
    for prompt in ["", " \n"] {
        let answer = worker.post(&json!({"operation": "image_generation", "prompt": prompt})).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
}

#[tokio::test]
async fn width_513() {
    let fault = invalid("width", json!(513)).await;
    assert_eq!((&fault["value"], &fault["message"]), (&json!(513), &json!("513 is no multiple of 8")));
}

#[tokio::test]
async fn steps_0() {
    let fault = invalid("steps", json!(0)).await;
    assert_eq!((&fault["value"], &fault["limit"]), (&json!(0), &json!("1..=150")));
}

#[tokio::test]
async fn guidance_nan() {
    invalid("guidance_scale", json!("NaN")).await;
    let worker = Worker::start().await;
    let bare =
        worker.post_text(r#"{"operation":"image_generation","prompt":"x","guidance_scale":NaN}"#).await;
    assert_eq!((bare.status.as_u16(), bare.fields()), (400, vec!["body".to_owned()]));
}

#[tokio::test]
async fn unknown_sampler() {
    let fault = invalid("sampler", json!("magic")).await;
    assert!(fault["message"].as_str().unwrap().contains("known: ddim, "), "{fault}");
}

#[tokio::test]
async fn unknown_field() {
    let fault = invalid("colour", json!("red")).await;
    assert!(fault["message"].as_str().unwrap().starts_with("is no field of image_generation"), "{fault}");
}

#[tokio::test]
async fn unknown_model() {
    let answer = refused(json!({"operation": "image_generation", "prompt": "x", "model": "sdxl"})).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "model_not_found"));
    assert_eq!(answer.json()["error"]["fields"][0]["value"], "sdxl");
}

#[tokio::test]
async fn unknown_operation() {
    let answer = refused(json!({"operation": "image_dream", "prompt": "x"})).await;
    assert_eq!((answer.status.as_u16(), answer.fields()), (400, vec!["operation".to_owned()]));
}

#[tokio::test]
async fn json_that_is_no_object_and_what_is_no_json() {
    let worker = Worker::start().await;
    for body in ["[]", "\"x\"", "null", "7"] {
        let answer = worker.post_text(body).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "invalid_request"), "{body}");
        assert!(
            answer.json()["error"]["message"].as_str().unwrap().contains("must be a JSON object"),
            "{body}"
        );
    }
    for body in ["", "{", "{\"operation\":", "a cat", "{} {}"] {
        let answer = worker.post_text(body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.json()["error"]["message"].as_str().unwrap().contains("is not JSON"), "{body}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(worker.post_text(deep).await.status, 400, "nesting does not exhaust the stack");
}

#[tokio::test]
async fn all_at_once() {
    let body = json!({"operation": "image_generation", "steps": 0, "width": 513, "sampler": "heun", "x": 1});
    assert_eq!(refused(body).await.fields(), ["prompt", "steps", "x", "width", "sampler"]);
}

#[tokio::test]
async fn what_the_model_cannot_do_is_422() {
    let png = "aGVsbG8=";
    for body in [
        json!({"operation": "image_inpaint", "prompt": "x", "init_image": png, "mask_image": png}),
        json!({"operation": "image_generation", "prompt": "x", "sampler": "heun"}),
        json!({"operation": "image_generation", "prompt": "x", "loras": [{"name": "y"}]}),
    ] {
        let answer = refused(body.clone()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (422, "unsupported_operation"),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_body_must_say_that_it_is_json() {
    let worker = Worker::start().await;
    let body = r#"{"operation":"image_generation","prompt":"x"}"#;
    for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
        let mut request = http::Request::post("/v1/jobs");
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let answer = worker.send(request.body(body.to_owned()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (415, "unsupported_media_type"));
    }
    let with_charset =
        http::Request::post("/v1/jobs").header("content-type", "Application/JSON; charset=utf-8");
    assert_eq!(worker.send(with_charset.body(body.to_owned()).unwrap()).await.status, 202);
}
