//! OpenAI's images over a socket. What its own client makes of it is tested in `tools/clients`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use sd_http::{ApiConfig, ApiToken, Faces, Tokens};
use serde_json::{Value, json};

use crate::support::{Answer, Setup, Worker};

async fn generations(worker: &Worker, body: &Value) -> Answer {
    let request = Request::post("/v1/images/generations").header("content-type", "application/json");
    worker.send(request.body(body.to_string()).unwrap()).await
}

/// The job that an answer is about.
async fn job(worker: &Worker, answer: &Answer) -> Value {
    let path = answer.headers["location"].to_str().unwrap();
    worker.get(path).await.json()
}

/// Sends a form; files stand after the fields.
async fn form(worker: &Worker, path: &str, fields: &[(&str, &str)], files: &[(&str, &[u8])]) -> Answer {
    const BOUNDARY: &str = "----of-this-test";
    let mut body = Vec::new();
    for (name, text) in fields {
        body.extend(
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n")
                .bytes(),
        );
    }
    for (name, bytes) in files {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"a.png\"\r\n\
             Content-Type: image/png\r\n\r\n"
        );
        body.extend(head.bytes());
        body.extend(*bytes);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").bytes());
    let request = Request::post(path)
        .header("host", "worker")
        .header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"))
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let socket = tokio::net::TcpStream::connect(worker.addr).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
    let connection = tokio::spawn(connection);
    let answer = Answer::of(sender.send_request(request).await.unwrap()).await;
    connection.abort();
    answer
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let image = image::RgbImage::from_pixel(width, height, image::Rgb([200, 10, 10]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[tokio::test]
async fn a_generation_is_an_ordinary_job() {
    let worker = Worker::start().await;
    let body = json!({"model": "test-model", "prompt": "a cat", "n": 2, "size": "32x64", "output_format": "jpeg",
                      "output_compression": 80, "quality": "high", "user": "me", "seed": 7, "steps": 2});
    let answer = generations(&worker, &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let told = answer.json();
    assert!(told["created"].as_u64().is_some_and(|seconds| seconds > 1_700_000_000));
    for (field, value) in [
        ("background", "opaque"),
        ("output_format", "jpeg"),
        ("size", "32x64"),
        ("quality", "high"),
        ("safety_identifier", "me"),
    ] {
        assert_eq!(told[field], value, "{field}");
    }
    let data = told["data"].as_array().unwrap();
    assert_eq!(data.iter().map(|image| image["seed"].as_u64().unwrap()).collect::<Vec<_>>(), [7, 8]);
    let picture = STANDARD.decode(data[1]["b64_json"].as_str().unwrap()).unwrap();
    let picture = image::load_from_memory_with_format(&picture, image::ImageFormat::Jpeg).unwrap();
    assert_eq!((picture.width(), picture.height()), (32, 64));

    let job = job(&worker, &answer).await;
    assert_eq!((&job["job_id"], &job["operation"]), (&told["job_id"], &json!("image_generation")));
    for (field, value) in
        [("num_images", json!(2)), ("seed", json!(7)), ("steps", json!(2)), ("width", json!(32))]
    {
        assert_eq!(job["parameters"][field], value, "{field}");
    }
    assert_eq!(job["parameters"]["output"], json!({"format": "jpeg", "quality": 80, "metadata": true}));
}

#[tokio::test]
async fn addresses_lead_to_the_pictures() {
    let worker = Worker::start().await;
    let body = json!({"prompt": "a cat", "n": 2, "response_format": "url"});
    let request = Request::post("/v1/images/generations")
        .header("content-type", "application/json")
        .header("x-forwarded-proto", "https");
    let told = worker.send(request.body(body.to_string()).unwrap()).await.json();
    for (index, image) in told["data"].as_array().unwrap().iter().enumerate() {
        let path = format!("/v1/jobs/{}/images/{index}", told["job_id"].as_str().unwrap());
        assert_eq!(image["url"], format!("https://worker{path}"));
        assert!(image.get("b64_json").is_none());
        assert_eq!(worker.get(&path).await.headers["content-type"], "image/png");
    }
}

#[tokio::test]
async fn errors_have_openais_form() {
    let worker = Worker::start().await;
    let refused = generations(&worker, &json!({"prompt": "a cat", "n": 9, "size": "33x64"})).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let error = refused.json()["error"].clone();
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("invalid_request_error"), &json!("invalid_request"))
    );
    assert_eq!(error["param"], "n");
    assert_eq!(refused.fields(), ["n", "size"]);
    assert!(error["message"].as_str().unwrap().starts_with("n: 9 is outside"), "{error}");

    let missing = generations(&worker, &json!({"prompt": "x", "model": "dall-e-3"})).await;
    let error = missing.json()["error"].clone();
    assert_eq!(
        (missing.status.as_u16(), &error["code"], &error["param"]),
        (404, &json!("model_not_found"), &json!("model"))
    );
    assert!(error["message"].as_str().unwrap().contains("test-model"), "{error}");

    let beyond = generations(&worker, &json!({"prompt": "x", "tiling": {"x": true}})).await;
    assert_eq!((beyond.status.as_u16(), &beyond.json()["error"]["param"]), (422, &json!("tiling")));

    let failed = generations(&worker, &json!({"prompt": "fail in step"})).await;
    assert_eq!((failed.status.as_u16(), &failed.json()["error"]["type"]), (500, &json!("server_error")));
    assert_eq!(failed.headers["x-should-retry"], "false");
    assert!(failed.headers["x-job-id"].to_str().unwrap().starts_with("job-"));

    for (path, content_type, status) in [
        ("/v1/images/generations", "text/plain", 415),
        ("/v1/images/edits", "application/json", 415),
        ("/v1/images/unknown", "application/json", 404),
        ("/v1/models/unknown", "application/json", 405),
    ] {
        let request = Request::post(path).header("content-type", content_type).body("{}".to_owned()).unwrap();
        let answer = worker.send(request).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error", "{path}");
    }
    assert_eq!(worker.get("/v1/images/generations").await.status, 405);
}

#[tokio::test]
async fn a_stream_tells_partial_pictures_and_then_the_finished_ones() {
    let worker = Worker::start().await;
    let body = json!({"prompt": "a cat", "stream": true, "partial_images": 2, "steps": 6, "n": 2, "seed": 3, "size": "32x32"});
    let answer = generations(&worker, &body).await;
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    let events: Vec<Value> = answer
        .text()
        .split("\n\n")
        .filter(|block| !block.is_empty())
        .map(|block| {
            let (name, data) = block.split_once('\n').unwrap();
            let event: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(name, format!("event: {}", event["type"].as_str().unwrap()));
            event
        })
        .collect();
    let types: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let (partial, done) = ("image_generation.partial_image", "image_generation.completed");
    assert_eq!(types, [partial, partial, done, done]);
    for (index, event) in events[..2].iter().enumerate() {
        assert_eq!((&event["partial_image_index"], &event["output_format"]), (&json!(index), &json!("jpeg")));
    }
    for event in &events {
        let picture = STANDARD.decode(event["b64_json"].as_str().unwrap()).unwrap();
        assert_eq!(image::load_from_memory(&picture).unwrap().width(), 32);
        assert_eq!(
            (&event["size"], &event["background"], &event["quality"]),
            (&json!("32x32"), &json!("opaque"), &json!("auto"))
        );
    }
    assert_eq!((&events[2]["seed"], &events[3]["seed"]), (&json!(3), &json!(4)));
    assert_eq!(events[3]["usage"]["total_tokens"], 0);

    let failing = json!({"prompt": "fail in step", "stream": true});
    let answer = generations(&worker, &failing).await;
    assert_eq!(answer.status, StatusCode::OK);
    let text = answer.text();
    let event: Value = serde_json::from_str(text.strip_prefix("event: error\ndata: ").unwrap()).unwrap();
    assert_eq!((&event["type"], &event["error"]["code"]), (&json!("error"), &json!("inference_failed")));
}

#[tokio::test]
async fn edits_and_variations_start_from_a_file() {
    let worker = Worker::start().await;
    let picture = png(32, 48);
    let fields =
        [("prompt", "1984"), ("n", "2"), ("strength", "0.5"), ("seed", "9"), ("output[metadata]", "false")];
    let edited = form(&worker, "/v1/images/edits", &fields, &[("image[]", &picture)]).await;
    assert_eq!(edited.status, StatusCode::OK, "{}", edited.text());
    assert_eq!(
        (&edited.json()["size"], edited.json()["data"].as_array().unwrap().len()),
        (&json!("32x48"), 2)
    );
    let parameters = job(&worker, &edited).await["parameters"].clone();
    for (field, value) in [
        ("operation", json!("image_transform")),
        ("prompt", json!("1984")),
        ("strength", json!(0.5)),
        ("seed", json!(9)),
    ] {
        assert_eq!(parameters[field], value, "{field}");
    }
    assert_eq!((&parameters["output"]["metadata"], &parameters["width"]), (&json!(false), &json!(32)));

    let varied =
        form(&worker, "/v1/images/variations", &[("response_format", "url")], &[("image", &picture)]).await;
    let parameters = job(&worker, &varied).await["parameters"].clone();
    assert_eq!((&parameters["prompt"], &parameters["strength"]), (&json!("a picture"), &json!(0.6)));

    // This model cannot inpaint.
    let masked = form(
        &worker,
        "/v1/images/edits",
        &fields,
        &[
            ("image", &picture),
            ("mask", &{
                let hole = image::RgbaImage::from_pixel(32, 48, image::Rgba([0; 4]));
                let mut bytes = std::io::Cursor::new(Vec::new());
                hole.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
                bytes.into_inner()
            }),
        ],
    )
    .await;
    assert_eq!((masked.status.as_u16(), &masked.json()["error"]["param"]), (422, &json!("operation")));

    let broken = form(&worker, "/v1/images/edits", &[("prompt", "x")], &[("image", b"no picture")]).await;
    assert_eq!((broken.status.as_u16(), &broken.json()["error"]["param"]), (400, &json!("image")));
    let none = form(&worker, "/v1/images/edits", &[("prompt", "x")], &[]).await;
    assert_eq!((none.status.as_u16(), &none.json()["error"]["param"]), (400, &json!("image")));
    let cut = Request::post("/v1/images/edits")
        .header("content-type", "multipart/form-data; boundary=x")
        .body("--x\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\ncut".to_owned())
        .unwrap();
    let cut = worker.send(cut).await;
    assert_eq!((cut.status.as_u16(), &cut.json()["error"]["type"]), (400, &json!("invalid_request_error")));
}

#[tokio::test]
async fn models_have_both_sets_of_fields() {
    let worker = Worker::start().await;
    let list = worker.get("/v1/models").await.json();
    assert_eq!((&list["object"], &list["models"][0]["id"]), (&json!("list"), &json!("test-model")));
    let entry = &list["data"][0];
    assert_eq!(
        (&entry["id"], &entry["object"], &entry["owned_by"]),
        (&json!("test-model"), &json!("model"), &json!("sd-worker"))
    );
    assert!(entry["created"].as_u64().is_some_and(|seconds| seconds > 1_700_000_000));
    let model = worker.get("/v1/models/test%2Dmodel").await.json();
    assert_eq!(
        (&model["object"], &model["created"], &model["default_steps"]),
        (&json!("model"), &entry["created"], &json!(3))
    );
    assert_eq!(worker.get("/v1/models/gpt-image-1").await.json()["error"]["type"], "invalid_request_error");
}

#[tokio::test]
async fn switched_off_it_is_not_there() {
    let faces = Faces { openai: false, ..Faces::default() };
    let api = ApiConfig { faces, ..ApiConfig::default() };
    let worker = Worker::with(Setup { api, ..Setup::default() }).await;
    let answer = generations(&worker, &json!({"prompt": "x"})).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "not_found"));
    assert!(answer.json()["error"].get("type").is_none());
    assert!(worker.get("/v1/models").await.json().get("data").is_none());
    assert!(worker.get("/v1/models/test-model").await.json().get("object").is_none());
}

#[tokio::test]
async fn the_token_is_wanted_here_too() {
    let api =
        ApiConfig { tokens: Some(Tokens::single(ApiToken::new("s3cret").unwrap())), ..ApiConfig::default() };
    let worker = Worker::with(Setup { api, ..Setup::default() }).await;
    let answer = generations(&worker, &json!({"prompt": "x"})).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["error"]["type"]),
        (401, &json!("invalid_request_error"))
    );
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
}
