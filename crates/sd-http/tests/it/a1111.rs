//! The web UI's API over a socket. What a client of it makes of the answers is tested in `tools/clients`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Request, StatusCode};
use sd_http::{ApiConfig, ApiToken, Faces, Tokens};
use serde_json::{Value, json};

use crate::support::{Answer, Setup, Worker};

async fn post(worker: &Worker, call: &str, body: &Value) -> Answer {
    let request = Request::post(format!("/sdapi/v1/{call}")).header("content-type", "application/json");
    worker.send(request.body(body.to_string()).unwrap()).await
}

async fn get(worker: &Worker, call: &str) -> Value {
    let answer = worker.get(&format!("/sdapi/v1/{call}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{call}: {}", answer.text());
    answer.json()
}

fn info(answer: &Answer) -> Value {
    serde_json::from_str(answer.json()["info"].as_str().unwrap()).unwrap()
}

fn png() -> String {
    let image = image::RgbImage::from_pixel(32, 16, image::Rgb([200, 10, 10]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    STANDARD.encode(bytes.into_inner())
}

#[tokio::test]
async fn txt2img_answers_field_by_field() {
    let worker = Worker::start().await;
    let body = json!({"prompt": "a cat", "negative_prompt": "blurry", "seed": 7, "steps": 4, "cfg_scale": 2.5, "width": 32,
                      "height": 48, "batch_size": 2, "n_iter": 1, "sampler_name": "Euler", "scheduler": "Karras", "firm": 1});
    let answer = post(&worker, "txt2img", &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let told = answer.json();
    let images = told["images"].as_array().unwrap();
    assert_eq!(images.len(), 2);
    let first = image::load_from_memory(&STANDARD.decode(images[0].as_str().unwrap()).unwrap()).unwrap();
    assert_eq!((first.width(), first.height()), (32, 48));
    for (field, value) in body.as_object().unwrap() {
        if field != "firm" {
            assert_eq!(told["parameters"][field], *value, "{field}");
        }
    }
    // What nobody said has the web UI's own default.
    for (field, value) in [
        ("enable_hr", json!(false)),
        ("hr_scale", json!(2.0)),
        ("send_images", json!(true)),
        ("styles", Value::Null),
    ] {
        assert_eq!(told["parameters"][field], value, "{field}");
    }

    let info = info(&answer);
    let job = answer.headers["x-job-id"].to_str().unwrap();
    for (field, value) in [
        ("prompt", json!("a cat")),
        ("all_prompts", json!(["a cat", "a cat"])),
        ("negative_prompt", json!("blurry")),
        ("all_negative_prompts", json!(["blurry", "blurry"])),
        ("seed", json!(7)),
        ("all_seeds", json!([7, 8])),
        ("subseed_strength", json!(0)),
        ("width", json!(32)),
        ("height", json!(48)),
        ("sampler_name", json!("Euler")),
        ("cfg_scale", json!(2.5)),
        ("steps", json!(4)),
        ("batch_size", json!(2)),
        ("restore_faces", json!(false)),
        ("face_restoration_model", Value::Null),
        ("sd_model_name", json!("test-model")),
        ("denoising_strength", Value::Null),
        ("extra_generation_params", json!({"Schedule type": "Karras"})),
        ("index_of_first_image", json!(0)),
        ("styles", json!([])),
        ("clip_skip", json!(1)),
        ("is_using_inpainting_conditioning", json!(false)),
        ("job_id", json!(job)),
        ("ignored", json!(["firm"])),
    ] {
        assert_eq!(info[field], value, "{field}");
    }
    let texts = info["infotexts"].as_array().unwrap();
    let text = texts[1].as_str().unwrap();
    assert!(
        text.starts_with("a cat\nNegative prompt: blurry\nSteps: 4, Sampler: Euler, Schedule type: Karras"),
        "{text}"
    );
    assert!(text.contains("Seed: 8, Size: 32x48"), "{text}");
    assert_eq!(info["job_timestamp"].as_str().unwrap().len(), 14);

    // The file tells the same, to those who ask for it here.
    let read = post(&worker, "png-info", &json!({"image": images[1]})).await.json();
    assert_eq!(read["info"], text);
    assert_eq!(
        (&read["parameters"]["Prompt"], &read["parameters"]["Size-2"]),
        (&json!("a cat"), &json!("48"))
    );
    let request: Value = serde_json::from_str(read["items"]["sd-worker"].as_str().unwrap()).unwrap();
    assert_eq!(request["seed"], 8);
}

#[tokio::test]
async fn what_is_left_open_is_as_the_model_has_it() {
    let worker = Worker::start().await;
    let answer = post(&worker, "txt2img", &json!({"prompt": "a cat", "send_images": false})).await;
    let told = answer.json();
    assert_eq!(told["images"], json!([]));
    for (field, value) in [
        ("steps", json!(3)),
        ("cfg_scale", json!(4.0)),
        ("width", json!(64)),
        ("sampler_name", json!("Euler")),
        ("seed", json!(-1)),
    ] {
        assert_eq!(told["parameters"][field], value, "{field}");
    }
    assert!(info(&answer)["seed"].is_u64());
    let hires = json!({"prompt": "a cat", "enable_hr": true, "hr_scale": 1.5, "denoising_strength": 0.4});
    let hires = post(&worker, "txt2img", &hires).await;
    assert_eq!(hires.status, StatusCode::OK, "{}", hires.text());
    assert_eq!(info(&hires)["denoising_strength"], 0.4);
}

#[tokio::test]
async fn without_a_prompt_it_is_empty() {
    let worker = Worker::start().await;
    let bodies = [
        json!({}),
        json!({"prompt": null}),
        json!({"prompt": ""}),
        json!({"negative_prompt": "a", "prompt": " "}),
    ];
    for body in bodies {
        let answer = post(&worker, "txt2img", &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!(info(&answer)["all_prompts"], json!([""]), "{body}");
        let read = post(&worker, "png-info", &json!({"image": answer.json()["images"][0]})).await.json();
        assert_eq!(read["parameters"]["Prompt"], "", "{read}");
    }
    let answer = post(&worker, "txt2img", &json!({"prompt": 7})).await;
    assert_eq!(answer.json()["detail"], "prompt: must be a text");
}

#[tokio::test]
async fn img2img_starts_from_a_picture() {
    let worker = Worker::start().await;
    let mut body = json!({"prompt": "a cat", "init_images": [format!("data:image/png;base64,{}", png())], "denoising_strength": 0.6});
    let answer = post(&worker, "img2img", &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let told = answer.json();
    assert_eq!(
        (&told["parameters"]["init_images"], &told["parameters"]["denoising_strength"]),
        (&Value::Null, &json!(0.6))
    );
    let info = info(&answer);
    assert_eq!(
        (&info["width"], &info["height"], &info["denoising_strength"]),
        (&json!(32), &json!(16), &json!(0.6))
    );
    let job = worker.get(answer.headers["location"].to_str().unwrap()).await.json();
    assert_eq!(job["operation"], "image_transform");

    body["include_init_images"] = true.into();
    assert_eq!(
        post(&worker, "img2img", &body).await.json()["parameters"]["init_images"],
        body["init_images"]
    );
    let none = post(&worker, "img2img", &json!({"prompt": "x"})).await;
    assert_eq!((none.status.as_u16(), &none.json()["fields"][0]["field"]), (400, &json!("init_images[0]")));
}

#[tokio::test]
async fn errors_have_the_web_uis_form() {
    let worker = Worker::start().await;
    let refused =
        post(&worker, "txt2img", &json!({"prompt": "x", "cfg_scale": 99, "sampler_name": "Restart"})).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let told = refused.json();
    assert_eq!(told["error"], "invalid_request");
    let detail = told["detail"].as_str().unwrap();
    assert!(
        detail.contains("sampler_name: is no sampler") && detail.contains("cfg_scale: 99 is outside"),
        "{detail}"
    );
    assert_eq!(told["errors"], told["detail"]);
    let model = json!({"prompt": "x", "override_settings": {"sd_model_checkpoint": "other"}});
    assert_eq!(post(&worker, "txt2img", &model).await.status, 404);
    assert_eq!(
        post(&worker, "txt2img", &json!({"prompt": "fail in step"})).await.json()["error"],
        "inference_failed"
    );
    assert_eq!(post(&worker, "txt2img", &json!([])).await.status, 400);
    assert_eq!(post(&worker, "png-info", &json!({"image": "aGVsbG8="})).await.status, 400);
    assert_eq!(worker.get("/sdapi/v1/nothing").await.json()["error"], "not_found");
    assert_eq!(worker.get("/sdapi/v1/txt2img").await.status, 405);
    let request = Request::post("/sdapi/v1/txt2img").body("{}".to_owned()).unwrap();
    assert_eq!(worker.send(request).await.status, 415);
}

#[tokio::test]
async fn progress_follows_and_interrupt_ends_it() {
    let worker = Worker::start().await;
    let idle = get(&worker, "progress").await;
    assert_eq!(
        (&idle["progress"], &idle["state"]["job_count"], &idle["current_image"]),
        (&json!(0.0), &json!(0), &Value::Null)
    );

    let set = post(&worker, "options", &json!({"show_progress_every_n_steps": 1})).await;
    assert_eq!((set.status.as_u16(), set.json()), (200, Value::Null));
    let body = json!({"prompt": "gated cat", "steps": 4});
    let drawing = post(&worker, "txt2img", &body);
    let watching = async {
        worker.gate.reached().await;
        let begun = get(&worker, "progress").await;
        assert_eq!((&begun["state"]["job_count"], &begun["state"]["sampling_step"]), (&json!(1), &json!(0)));
        worker.gate.let_through(1);
        loop {
            let progress = get(&worker, "progress").await;
            if progress["state"]["sampling_step"] == 1 && progress["current_image"].is_string() {
                assert_eq!(
                    (&progress["progress"], &progress["state"]["sampling_steps"]),
                    (&json!(0.26), &json!(4))
                );
                assert!(progress["eta_relative"].is_f64());
                let image = STANDARD.decode(progress["current_image"].as_str().unwrap()).unwrap();
                image::load_from_memory(&image).unwrap();
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(get(&worker, "progress?skip_current_image=true").await["current_image"], Value::Null);
        worker.gate.reached().await;
        assert_eq!(post(&worker, "interrupt", &json!({})).await.json(), json!({}));
        worker.gate.let_through(1);
    };
    let (answer, ()) = tokio::join!(drawing, watching);
    assert_eq!((answer.status.as_u16(), &answer.json()["images"]), (200, &json!([])));
    assert_eq!(info(&answer)["infotexts"], json!([]));
    let job = worker.get(answer.headers["location"].to_str().unwrap()).await.json();
    assert_eq!(job["state"], "cancelled");
    assert_eq!(get(&worker, "progress").await["progress"], 0.0);
    worker.gate.open();
}

/// Jobs that came another way are nobody's business here.
#[tokio::test]
async fn interrupt_leaves_other_jobs_alone() {
    let worker = Worker::start().await;
    let job = worker.occupy().await;
    assert_eq!(get(&worker, "progress").await["state"]["job_count"], 0);
    post(&worker, "interrupt", &json!({})).await;
    post(&worker, "skip", &json!({})).await;
    worker.gate.open();
    assert_eq!(worker.stream(&job).await.last().unwrap().data, "[DONE]");
}

#[tokio::test]
async fn options_are_kept_and_used() {
    let worker = Worker::start().await;
    let shown = get(&worker, "options").await;
    assert_eq!(
        (&shown["sd_model_checkpoint"], &shown["samples_format"]),
        (&json!("test-model"), &json!("png"))
    );
    let options = json!({"samples_format": "jpg", "jpeg_quality": 70, "sd_model_checkpoint": "default", "save_to_dirs": true});
    assert_eq!(post(&worker, "options", &options).await.status, StatusCode::OK);
    let shown = get(&worker, "options").await;
    assert_eq!((&shown["jpeg_quality"], &shown["sd_model_checkpoint"]), (&json!(70), &json!("default")));
    let answer = post(&worker, "txt2img", &json!({"prompt": "a cat"})).await.json();
    let picture = STANDARD.decode(answer["images"][0].as_str().unwrap()).unwrap();
    assert_eq!(image::guess_format(&picture).unwrap(), image::ImageFormat::Jpeg);

    // For one request only.
    let body = json!({"prompt": "a cat", "override_settings": {"samples_format": "webp"}});
    let answer = post(&worker, "txt2img", &body).await.json();
    let picture = STANDARD.decode(answer["images"][0].as_str().unwrap()).unwrap();
    assert_eq!(image::guess_format(&picture).unwrap(), image::ImageFormat::WebP);
    assert_eq!(get(&worker, "options").await["samples_format"], "jpg");

    let refused =
        post(&worker, "options", &json!({"sd_model_checkpoint": "other", "jpeg_quality": 50})).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]), (404, &json!("model_not_found")));
    let refused = post(&worker, "options", &json!({"sd_hypernetwork": "x"})).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["fields"][0]["field"]),
        (400, &json!("sd_hypernetwork"))
    );
    assert_eq!(get(&worker, "options").await["jpeg_quality"], 70);
}

#[tokio::test]
async fn lists_tell_what_there_is() {
    let worker = Worker::start().await;
    assert_eq!(
        get(&worker, "samplers").await,
        json!([{"name": "Euler", "aliases": ["k_euler"], "options": {}}, {"name": "DDIM", "aliases": ["ddim"], "options": {}}])
    );
    let schedulers = get(&worker, "schedulers").await;
    let names: Vec<&str> =
        schedulers.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["automatic", "normal", "karras"]);
    assert_eq!((&schedulers[2]["label"], &schedulers[2]["default_rho"]), (&json!("Karras"), &json!(7.0)));
    let models = get(&worker, "sd-models").await;
    assert_eq!((&models[0]["title"], &models[0]["model_name"]), (&json!("test-model"), &json!("test-model")));
    assert_eq!(get(&worker, "latent-upscale-modes").await, json!([{"name": "Latent"}]));
    assert_eq!(get(&worker, "embeddings").await, json!({"loaded": {}, "skipped": {}}));
    assert_eq!(get(&worker, "scripts").await, json!({"txt2img": [], "img2img": []}));
    for empty in
        ["loras", "upscalers", "sd-vae", "hypernetworks", "face-restorers", "prompt-styles", "script-info"]
    {
        assert_eq!(get(&worker, empty).await, json!([]), "{empty}");
    }
    assert_eq!(post(&worker, "refresh-checkpoints", &json!({})).await.json(), Value::Null);
}

#[tokio::test]
async fn the_password_is_the_token() {
    let api =
        ApiConfig { tokens: Some(Tokens::single(ApiToken::new("s3cret").unwrap())), ..ApiConfig::default() };
    let worker = Worker::with(Setup { api, ..Setup::default() }).await;
    let asked = |authorization: String| {
        let request = Request::get("/sdapi/v1/samplers").header("authorization", authorization);
        worker.send(request.body(String::new()).unwrap())
    };
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    assert_eq!(asked(basic("anyone:s3cret")).await.status, StatusCode::OK);
    assert_eq!(asked("Bearer s3cret".into()).await.status, StatusCode::OK);
    for wrong in [basic("anyone:wrong"), basic("s3cret"), "Basic x".into(), "Bearer wrong".into()] {
        let answer = asked(wrong).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (401, &json!("unauthorized")));
        assert_eq!(answer.headers["www-authenticate"], "Basic realm=\"sd-worker\"");
    }
    // A browser adds what it was told once to what a strange page sends, too.
    for (origin, status) in [("http://worker", 200), ("http://evil.example", 401), ("null", 401)] {
        let request = Request::get("/sdapi/v1/samplers")
            .header("authorization", basic("anyone:s3cret"))
            .header("origin", origin);
        assert_eq!(worker.send(request.body(String::new()).unwrap()).await.status, status, "{origin}");
    }
    // Only here.
    let request = Request::get("/v1/jobs").header("authorization", basic("anyone:s3cret"));
    assert_eq!(worker.send(request.body(String::new()).unwrap()).await.status, 401);
}

#[tokio::test]
async fn switched_off_it_is_not_there() {
    let faces = Faces { a1111: false, ..Faces::default() };
    let api = ApiConfig { faces, ..ApiConfig::default() };
    let worker = Worker::with(Setup { api, ..Setup::default() }).await;
    for call in ["txt2img", "options", "nothing"] {
        let answer = post(&worker, call, &json!({"prompt": "x"})).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "not_found"), "{call}");
    }
}
