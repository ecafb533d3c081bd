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
    /// With the demonstration model and the two others; its log lines go to standard error.
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sd-worker"))
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--model",
                "demo",
                "--model",
                FIRST,
                "--model",
                SECOND,
            ])
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

/// With room for one, jobs of two models by turns load the second model once: those of the loaded model overtake.
#[test]
fn by_turns_asked_for_two_models_do_not_thrash() {
    let refusal = refusal();
    let needs = refusal.split("needs ").nth(1).unwrap().split(' ').next().unwrap();
    // To the next megabyte: what the demonstration model takes alone, and nothing beside it.
    let budget = format!("{:.3}GB", needs.parse::<f64>().unwrap() + 0.001);
    let service = Service::start(&["--memory-budget", &budget]);
    let held = service.submit("demo", 60);
    let jobs: Vec<String> = (0..10).map(|turn| service.submit([FIRST, "demo"][turn % 2], 2)).collect();
    service.done(&held);
    let loads: usize = jobs.iter().map(|job| service.done(job).matches("is being loaded").count()).sum();
    assert_eq!(loads, 1);
    assert_eq!((service.state("demo"), service.state(FIRST)), ("unloaded".into(), "loaded".into()));
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
