//! A service with several models, as its clients meet it: the real binary, the demonstration model and two tiny ones.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(120);
const FIRST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/sd15/model");
const SECOND: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/sd21/model");

struct Service {
    child: Child,
    address: String,
}

impl Service {
    /// With the demonstration model and the two others.
    fn start(arguments: &[&str]) -> Self {
        let models = ["--model", "demo", "--model", FIRST, "--model", SECOND];
        Self::with(&[&models, arguments].concat())
    }

    /// With the models of this configuration file.
    fn configured(file: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, file).unwrap();
        Self::with(&[&["--config", path.to_str().unwrap()], arguments].concat())
    }

    /// Its log lines go to standard error.
    fn with(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sd-worker"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
        let service = Self { child, address };
        service.until("never ready", || service.send("GET", "/ready", "").0 == 200);
        service
    }

    fn send(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (address, length) = (&self.address, body.len());
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}",
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    fn json(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, body) = self.send(method, path, body);
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
    }

    fn submit(&self, model: &str, steps: u32) -> String {
        let job = json!({"operation": "image_generation", "prompt": "a red circle", "model": model, "steps": steps,
                         "width": 64, "height": 64, "seed": 1});
        let (status, accepted) = self.json("POST", "/v1/jobs", &job.to_string());
        assert_eq!(status, 202, "{accepted}");
        accepted["sse_url"].as_str().unwrap().to_owned()
    }

    /// The story of a job that must end well.
    fn done(&self, stream: &str) -> String {
        let story = self.send("GET", stream, "").1;
        assert!(story.contains("data: [DONE]"), "{story}");
        story
    }

    fn state(&self, model: &str) -> String {
        let (status, model) = self.json("GET", &format!("/v1/models/{model}"), "");
        assert_eq!(status, 200, "{model}");
        model["state"].as_str().unwrap().to_owned()
    }

    fn until(&self, what: &str, done: impl Fn() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < PATIENCE, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn models_are_told_before_they_are_loaded_and_loaded_by_jobs_and_on_request() {
    let service = Service::start(&[]);
    let models = service.json("GET", "/v1/models", "").1["models"].as_array().unwrap().clone();
    let told: Vec<_> = models.iter().map(|model| (model["id"].as_str().unwrap(), &model["state"])).collect();
    assert_eq!(told, [("demo", &json!("loaded")), (FIRST, &json!("unloaded")), (SECOND, &json!("unloaded"))]);
    assert!(models.iter().all(|model| model["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 100_000)));

    let story = service.done(&service.submit(FIRST, 2));
    assert!(story.contains("is being loaded"), "{story}");
    let after = service.json("GET", &format!("/v1/models/{FIRST}"), "").1;
    assert_eq!(after["state"], "loaded");
    // What the files told is what the loaded model says.
    for (field, value) in models[1].as_object().unwrap().iter().filter(|(field, _)| *field != "state") {
        assert_eq!(after[field], *value, "{field}");
    }

    let (status, answer) = service.json("POST", &format!("/v1/models/{SECOND}/load"), "");
    assert!(status == 200 || status == 202, "{answer}");
    service.until("it is never loaded", || service.state(SECOND) == "loaded");
    let (status, _) = service.json("POST", &format!("/v1/models/{FIRST}/unload"), "");
    assert_eq!(status, 202);
    service.until("it is never unloaded", || service.state(FIRST) == "unloaded");
    service.done(&service.submit(FIRST, 1));
}

/// Gigabytes that the demonstration model takes: all, its weights, and the work on a picture.
fn needs() -> [f64; 3] {
    let refusal = refusal();
    let after =
        |words: &str| refusal.split(words).nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    [after("needs "), after("GB ("), after("weights, ")]
}

/// With room for one, jobs of two models by turns load the second model once: those of the loaded model overtake. Without
/// affinity, every job loads its model again.
#[test]
fn by_turns_asked_for_two_models_do_not_thrash() {
    // To the next megabyte: what the demonstration model takes alone, and nothing beside it.
    let budget = format!("{:.3}GB", needs()[0] + 0.001);
    let loads = |affinity: &[&str]| {
        let service = Service::start(&[&["--memory-budget", &budget], affinity].concat());
        let held = service.submit("demo", 60);
        let jobs: Vec<String> = (0..10).map(|turn| service.submit([FIRST, "demo"][turn % 2], 2)).collect();
        service.done(&held);
        let loads: usize = jobs.iter().map(|job| service.done(job).matches("is being loaded").count()).sum();
        (loads, service.state("demo"), service.state(FIRST))
    };
    assert_eq!(loads(&[]), (1, "unloaded".into(), "loaded".into()));
    assert_eq!(loads(&["--model-affinity", "0"]).0, 10);
}

/// With room for two of three, the one goes that was not used for the longest time, not the one that was loaded first.
#[test]
fn the_model_that_was_not_used_for_the_longest_time_makes_room() {
    let [_, weights, work] = needs();
    let budget = format!("{:.3}GB", 2.0 * weights + work + 0.004);
    let table = |name: &str| format!("[[models]]\nname = \"{name}\"\nmodel = \"demo\"\n");
    let service = Service::configured(&["a", "b", "c"].map(table).concat(), &["--memory-budget", &budget]);
    let states = || ["a", "b", "c"].map(|model| service.state(model));
    let use_once = |model: &str| drop(service.done(&service.submit(model, 1)));
    use_once("b");
    assert_eq!(states(), ["loaded", "loaded", "unloaded"]);
    use_once("a");
    use_once("c");
    assert_eq!(states(), ["loaded", "unloaded", "loaded"]);
    use_once("b");
    assert_eq!(states(), ["unloaded", "loaded", "loaded"]);
}

/// Each model of the file tells what it has itself, and jobs find the model that can do them.
#[test]
fn models_of_the_file_have_settings_of_their_own() {
    let network = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/upscalers/basic_2x.safetensors");
    let file = format!(
        "[[models]]\nname = \"plain\"\nmodel = \"demo\"\n\
         [[models]]\nname = \"other\"\nmodel = \"{FIRST}\"\nrefiner = \"{FIRST}\"\ndtype = \"bf16\"\nupscaler = \"{network}\"\n"
    );
    let service = Service::configured(&file, &["--dtype", "f32"]);
    let told = || service.json("GET", "/v1/models", "").1["models"].clone();
    let before = told();
    for (index, id, dtype, refiner, networks) in [
        (0, "plain", "f32", Value::Null, Value::Null),
        (1, "other", "bf16", json!("model"), json!([{"name": "basic_2x", "scale": 2, "size_multiple": 2}])),
    ] {
        let model = &before[index];
        assert_eq!((&model["id"], &model["dtype"]), (&json!(id), &json!(dtype)));
        assert_eq!((&model["refiner"], &model["upscale_models"]), (&refiner, &networks), "{id}");
        let has_refiner = model["features"].as_array().unwrap().contains(&json!("refiner"));
        assert_eq!(has_refiner, !refiner.is_null(), "{id}");
    }
    let refined = json!({"operation": "image_generation", "prompt": "a star", "model": "other", "steps": 4, "seed": 1,
                         "refiner": {"start": 0.5}, "timestep_spacing": "trailing"});
    // The default model has no network: the one that has enlarges.
    let picture = json!({"operation": "image_upscale", "image": tiny_png()});
    for job in [refined, picture] {
        let (status, accepted) = service.json("POST", "/v1/jobs", &job.to_string());
        assert_eq!(status, 202, "{accepted}");
        service.done(accepted["sse_url"].as_str().unwrap());
    }
    let after = told();
    assert_eq!((&after[0]["state"], &after[1]["state"]), (&json!("loaded"), &json!("loaded")));
    for (field, value) in before[1].as_object().unwrap().iter().filter(|(field, _)| *field != "state") {
        assert_eq!(after[1][field], *value, "{field}");
    }
}

/// A picture of 8x8 pixels as base64.
fn tiny_png() -> String {
    use base64::Engine as _;
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::DynamicImage::new_rgb8(8, 8).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    base64::engine::general_purpose::STANDARD.encode(bytes.into_inner())
}

#[test]
fn two_models_of_one_name_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("c.toml"), "model = \"demo\"\n[[models]]\nmodel = \"demo\"\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_sd-worker"))
        .args(["serve", "--listen", "127.0.0.1:0", "--config", "c.toml"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("model demo: there are two of this name"));
}

#[test]
fn an_unused_model_is_unloaded_and_comes_back() {
    let service = Service::start(&["--idle-unload", "1"]);
    service.until("it is never unloaded", || service.state("demo") == "unloaded");
    assert_eq!(service.send("GET", "/ready", "").0, 200, "it serves on request");
    let story = service.done(&service.submit("demo", 1));
    assert!(story.contains("model `demo` is being loaded"), "{story}");
}

/// What a service says whose budget is too small for the demonstration model.
fn refusal() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sd-worker"))
        .args(["serve", "--listen", "127.0.0.1:0", "--memory-budget", "1MB"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_default_beyond_the_budget_is_refused_with_figures() {
    let error = refusal();
    assert!(error.contains("model `demo` needs 0.0") && error.contains("the budget is 0.001 GB"), "{error}");
}

#[test]
fn only_a_service_takes_several_models() {
    let output = Command::new(env!("CARGO_BIN_EXE_sd-worker"))
        .args(["generate", "a cat", "--model", "demo", "--model", FIRST])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("only `serve` takes several"));
}

/// What belongs to one model belongs to the first: the others are of families that could not take its refiner.
#[test]
fn a_refiner_belongs_to_the_first_model() {
    let service = Service::start(&["--refiner", "demo"]);
    let refines = |model: &str| {
        let models = service.json("GET", "/v1/models", "").1;
        let found = models["models"].as_array().unwrap().iter().find(|entry| entry["id"] == model).cloned();
        found.unwrap()["features"].as_array().unwrap().contains(&json!("refiner"))
    };
    assert!(refines("demo") && !refines(FIRST) && !refines(SECOND));
    let ask = |model: &str| {
        let job = json!({"operation": "image_generation", "prompt": "a star", "model": model, "steps": 4, "seed": 1,
                         "refiner": {"start": 0.5}, "timestep_spacing": "trailing"});
        service.json("POST", "/v1/jobs", &job.to_string())
    };
    let (status, accepted) = ask("demo");
    assert_eq!(status, 202, "{accepted}");
    service.done(accepted["sse_url"].as_str().unwrap());
    let (status, refused) = ask(FIRST);
    assert_eq!((status, &refused["error"]["fields"][0]["field"]), (422, &json!("refiner")), "{refused}");
}
