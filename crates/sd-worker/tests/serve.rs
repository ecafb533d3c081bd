//! The service as its clients and its supervisor meet it: the real binary on a free port.

#![allow(clippy::unwrap_used)]

#[path = "../../sd-models/tests/support/controlnet.rs"]
mod nets;

#[path = "support/service.rs"]
mod service;

use serde_json::{Value, json};
use service::Service;

fn job(steps: u32) -> Value {
    json!({"operation": "image_generation", "prompt": "a red circle on green grass", "steps": steps, "seed": 3})
}

#[test]
fn a_job_is_accepted_told_and_its_picture_fetched() {
    let service = Service::start(&[]);
    assert_eq!(service.get("/health").0, 200);
    let (status, accepted) = service.submit(&job(3));
    assert_eq!(status, 202, "{accepted}");
    let story = service.get(accepted["sse_url"].as_str().unwrap()).1;
    for part in ["id: 1\n", "\"type\":\"started\"", "\"step\":3", "\"type\":\"complete\"", "data: [DONE]"] {
        assert!(story.contains(part), "{part} is not in the story");
    }
    let id = accepted["job_id"].as_str().unwrap();
    assert_eq!(service.get(&format!("/v1/jobs/{id}/images/0")).0, 200);
    let view: Value = serde_json::from_str(&service.get(&format!("/v1/jobs/{id}")).1).unwrap();
    assert_eq!(view["state"], "completed", "{view}");
}

/// The notes of a run without a step come before its end, as those of every other do.
#[test]
fn a_job_without_a_step_tells_its_notes() {
    use base64::Engine as _;
    let mut picture = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(64, 64).write_to(&mut picture, image::ImageFormat::Png).unwrap();
    let service = Service::start(&[]);
    let (status, accepted) = service.submit(&json!({
        "operation": "image_transform", "prompt": "a {red|red} star", "seed": 5, "steps": 20, "strength": 0.04,
        "init_image": base64::engine::general_purpose::STANDARD.encode(picture.into_inner()),
    }));
    assert_eq!(status, 202, "{accepted}");
    let story = service.get(accepted["sse_url"].as_str().unwrap()).1;
    let place = |part: &str| story.find(part).unwrap_or_else(|| panic!("{part} is not in {story}"));
    let end = place("\"type\":\"complete\"");
    for note in ["seed 5 chose the prompt: a red star", "strength 0.04 of 20 steps is less than one step"] {
        assert!(place(note) < end, "{note}");
        assert_eq!(story.matches(note).count(), 1, "{note}");
    }
}

#[test]
fn previews_come_at_the_chosen_steps_and_look_like_the_picture() {
    let service = Service::start(&[]);
    for method in ["latent_rgb", "vae"] {
        let (status, accepted) = service.submit(&json!({
            "operation": "image_generation", "prompt": "a large red circle on grass", "steps": 10, "seed": 5,
            "preview": {"every": 3, "method": method, "max_side": 48},
        }));
        assert_eq!(status, 202, "{accepted}");
        let story = service.get(accepted["sse_url"].as_str().unwrap()).1;
        let previews: Vec<Value> = story
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter_map(|data| serde_json::from_str::<Value>(data).ok())
            .filter(|event| event["type"] == "preview")
            .collect();
        let steps: Vec<_> = previews.iter().map(|event| event["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [3, 6, 9], "{method}");
        use base64::Engine as _;
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(previews[2]["image"].as_str().unwrap()).unwrap();
        let picture = image::load_from_memory(&bytes).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), (48, 48));
        let [red, green, blue] = picture.get_pixel(24, 24).0;
        assert!(red > green && red > blue, "{method}: the middle is {red} {green} {blue}");
        let [red, green, blue] = picture.get_pixel(3, 3).0;
        assert!(green > red && green > blue, "{method}: the corner is {red} {green} {blue}");
    }
}

/// Where a tiny autoencoder was loaded, previews by it are told among the model's abilities, and come when they are decoded,
/// without changing the picture.
#[test]
fn previews_by_a_tiny_autoencoder_come_where_one_was_loaded() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures");
    let (model, tiny) =
        (format!("--model={fixtures}/sd15/model"), format!("--preview-vae={fixtures}/taesd/model"));
    let mut request = json!({
        "operation": "image_generation", "prompt": "x", "steps": 150, "seed": 3,
        "preview": {"every": 2, "method": "taesd"},
    });
    let service = Service::start(&[&model, &tiny]);
    let run = |request: &Value| {
        let (status, accepted) = service.submit(request);
        assert_eq!(status, 202, "{accepted}");
        let story = service.get(accepted["sse_url"].as_str().unwrap()).1;
        assert!(story.contains("data: [DONE]"), "{story}");
        let image = service.get(&format!("/v1/jobs/{}/images/0", accepted["job_id"].as_str().unwrap())).1;
        (story.matches("\"type\":\"preview\"").count(), image)
    };
    // On a machine that is busy otherwise a run may end before the first is ready.
    let (previews, with) = (0..50).map(|_| run(&request)).find(|(previews, _)| *previews > 0).unwrap();
    assert!(previews <= 75, "{previews} previews");
    request.as_object_mut().unwrap().remove("preview");
    assert_eq!(run(&request), (0, with));

    let models: Value = serde_json::from_str(&service.get("/v1/models").1).unwrap();
    assert_eq!(models["models"][0]["previews"], json!(["latent_rgb", "taesd", "vae"]));
    drop(service);
    request["preview"] = json!({"every": 2, "method": "taesd"});
    let (status, refused) = Service::start(&[&model]).submit(&request);
    assert_eq!(
        (status, &refused["error"]["fields"][0]["field"]),
        (422, &json!("preview.method")),
        "{refused}"
    );
}

#[test]
fn controls_are_listed_taken_and_refused_by_name() {
    use base64::Engine as _;
    let family = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/sd15"));
    let folder = tempfile::tempdir().unwrap();
    nets::folder(family, "net", folder.path());
    let net = format!("edges={}", folder.path().display());
    let model = family.join("model");
    let service = Service::start(&["--model", model.to_str().unwrap(), "--controlnet", &net]);
    let listed = service.get("/v1/models").1;
    assert!(listed.contains(r#""controls":["edges"]"#) && listed.contains(r#""control""#), "{listed}");

    let picture = std::fs::read(family.join("controls/init_64x64.png")).unwrap();
    let picture = base64::engine::general_purpose::STANDARD.encode(picture);
    let request = |kind: &str| {
        json!({"operation": "image_generation", "prompt": "a star", "steps": 1, "guess_mode": true,
               "control": [{"kind": kind, "image": picture, "preprocess": "canny", "strength": 0.8}]})
    };
    let (status, accepted) = service.submit(&request("edges"));
    assert_eq!(status, 202, "{accepted}");
    let story = service.get(accepted["sse_url"].as_str().unwrap()).1;
    assert!(story.contains("data: [DONE]"), "{story}");
    let (status, answer) = service.submit(&request("pose"));
    assert_eq!((status, &answer["error"]["fields"][0]["limit"]), (422, &json!("edges")), "{answer}");
    assert_eq!(answer["error"]["fields"][0]["field"], "control[0].kind");
}

#[test]
fn what_the_model_cannot_do_is_refused_before_a_job_exists() {
    let service = Service::start(&[]);
    let (status, answer) = service.submit(
        &json!({"operation": "image_generation", "prompt": "x", "loras": [{"name": "ink", "scale": 1.0}]}),
    );
    assert_eq!((status, &answer["error"]["code"]), (422, &json!("unsupported_operation")), "{answer}");
    let (status, answer) = service
        .submit(&json!({"operation": "image_generation", "prompt": "x", "width": 513,
        "steps": 0, "colour": "red"}));
    assert_eq!(status, 400);
    let fields: Vec<_> =
        answer["error"]["fields"].as_array().unwrap().iter().map(|f| f["field"].clone()).collect();
    for field in ["width", "steps", "colour"] {
        assert!(fields.contains(&json!(field)), "{field} is not named: {answer}");
    }
    let (_, jobs) = service.get("/v1/jobs");
    assert!(!jobs.contains("job-"), "{jobs}");
}

/// The folder's files are known by their names; what does not fit the model, and paths, are not.
#[test]
fn loras_of_the_folder_are_listed_applied_and_guarded() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/sd15");
    let (model, loras) = (format!("{fixtures}/model"), tempfile::tempdir().unwrap());
    for (from, to) in
        [("sd15/loras/kohya", "kohya"), ("sd15/loras/peft", "peft"), ("sdxl/loras/diffusers", "other")]
    {
        let bytes = std::fs::read(format!("{fixtures}/../{from}.safetensors")).unwrap();
        std::fs::write(loras.path().join(format!("{to}.safetensors")), bytes).unwrap();
    }
    std::fs::write(loras.path().join("notes.txt"), "x").unwrap();
    let service = Service::start(&["--model", &model, "--lora-dir", loras.path().to_str().unwrap()]);
    let models: Value = serde_json::from_str(&service.get("/v1/models").1).unwrap();
    assert_eq!(models["models"][0]["loras"], json!(["kohya", "peft"]));

    let with = |loras: Value| {
        json!({"operation": "image_generation", "prompt": "x", "steps": 1, "seed": 3, "loras": loras,
            "output": {"metadata": false}})
    };
    let (status, answer) =
        service.submit(&with(json!([{"name": "kohya"}, {"name": "../kohya"}, {"name": "other"}])));
    assert_eq!(status, 400, "{answer}");
    let fields: Vec<_> =
        answer["error"]["fields"].as_array().unwrap().iter().map(|f| f["field"].clone()).collect();
    assert_eq!(fields, ["loras[1].name", "loras[2].name"], "{answer}");

    let picture = |loras: Value| {
        let (status, accepted) = service.submit(&with(loras));
        assert_eq!(status, 202, "{accepted}");
        assert!(service.get(accepted["sse_url"].as_str().unwrap()).1.contains("data: [DONE]"));
        let job = format!("/v1/jobs/{}", accepted["job_id"].as_str().unwrap());
        let view: Value = serde_json::from_str(&service.get(&job).1).unwrap();
        assert_eq!(view["state"], "completed", "{view}");
        service.get(&format!("{job}/images/0")).1
    };
    let plain = picture(json!([]));
    let adapted = picture(json!([{"name": "kohya", "scale": 0.8}, {"name": "peft", "scale": -0.5}]));
    assert_ne!(adapted, plain);
    assert_eq!(picture(json!([])), plain);
}

#[test]
#[cfg(unix)]
fn sigterm_finishes_what_runs_and_refuses_what_is_new() {
    for signal in ["-TERM", "-INT"] {
        let mut service = Service::start(&[]);
        let (status, accepted) = service.submit(&job(60));
        assert_eq!(status, 202, "{accepted}");
        // Connected before the signal: it must be told the whole story.
        let url = accepted["sse_url"].as_str().unwrap().to_owned();
        let story = std::thread::scope(|scope| {
            let listener = scope.spawn(|| service.get(&url).1);
            std::thread::sleep(std::time::Duration::from_millis(300));
            service.signal(signal);
            listener.join().unwrap()
        });
        assert!(story.contains("data: [DONE]"), "{signal}: the running job was not finished");
        assert!(service.wait().success(), "{signal}");
    }
}

#[test]
fn a_token_guards_the_jobs_and_not_the_health() {
    let service = Service::start(&["--token", "tr0ub4dor"]);
    assert_eq!(service.get("/health").0, 200);
    assert_eq!(service.get("/v1/jobs").0, 401);
    assert_eq!(service.send("GET", "/v1/jobs", "authorization: Bearer wrong\r\n", "").0, 401);
    assert_eq!(service.send("GET", "/v1/jobs", "authorization: Bearer tr0ub4dor\r\n", "").0, 200);
}

#[test]
fn a_picture_beyond_the_memory_fails_alone_and_with_figures() {
    let service = Service::start(&["--memory-limit", "30MB"]);
    let large = json!({"operation": "image_generation", "prompt": "a star", "width": 1024, "height": 1024});
    let (status, accepted) = service.submit(&large);
    assert_eq!(status, 202, "{accepted}");
    let story = service.get(accepted["sse_url"].as_str().unwrap()).1;
    for part in ["out_of_memory", "width 1024 and height 1024 need", "of the limit of 30 MB"] {
        assert!(story.contains(part), "{part} is not in {story}");
    }
    let (_, accepted) = service.submit(&job(1));
    assert!(service.get(accepted["sse_url"].as_str().unwrap()).1.contains("data: [DONE]"));
}

/// One pool of the size asked for: no library below starts another, whatever its own variables say.
#[test]
#[cfg(target_os = "linux")]
fn the_threads_that_compute_are_those_asked_for() {
    let service = Service::start_with(&["--threads", "3"], &[("RAYON_NUM_THREADS", "5")]);
    // Large enough that candle would spread the sampler's arithmetic over threads.
    let (status, accepted) = service.submit(&json!({"operation": "image_generation", "prompt": "a star",
        "width": 512, "height": 512, "steps": 1}));
    assert_eq!(status, 202, "{accepted}");
    let story = service.get(accepted["sse_url"].as_str().unwrap()).1;
    assert!(story.contains("data: [DONE]"), "{story}");
    let mut names: Vec<String> = std::fs::read_dir(format!("/proc/{}/task", service.child.id()))
        .unwrap()
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap().trim().to_owned())
        .filter(|name| name != "sd-worker" && name != "http")
        .collect();
    names.sort();
    let engine = ["sd-deadlines", "sd-engine", "sd-preview-nets", "sd-previews"];
    assert_eq!(names, [&["compute-0", "compute-1", "compute-2"][..], &engine].concat());
}

/// What is logged while a job runs names the job, so that lines of jobs that run together can be told apart.
#[test]
fn the_log_has_a_span_for_each_job() {
    let mut service = Service::start(&["--log-format", "json", "--log", "info"]);
    let (_, accepted) = service.submit(&job(2));
    let id = accepted["job_id"].as_str().unwrap().to_owned();
    service.get(accepted["sse_url"].as_str().unwrap());
    let line = |service: &Service, message: &str| {
        let log = service.log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["fields"]["message"] == message && line["span"]["id"] == *id)
    };
    service.until("over", |service| line(service, "over").is_some());
    for message in ["started", "over"] {
        let line = line(&service, message).unwrap();
        assert_eq!(line["span"]["name"], "job");
        assert_eq!(line["span"]["operation"], "image_generation");
        assert_eq!(line["span"]["model"], "demo");
    }
    assert_eq!(line(&service, "over").unwrap()["fields"]["state"], "completed");
}

/// The variable may be there for all programs of a machine: it is no reason not to start.
#[test]
#[cfg(not(feature = "otel"))]
fn a_collector_in_the_environment_is_told_to_be_in_vain() {
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")];
    let mut service = Service::start_unready(&[], &variables);
    service.until("warned", |service| {
        service
            .log()
            .contains("OTEL_EXPORTER_OTLP_ENDPOINT is set, but this worker was built without the feature")
    });
}
