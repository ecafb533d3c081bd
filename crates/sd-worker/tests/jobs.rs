//! `sd-worker jobs` against a served worker, both the real binary, and against a server that breaks.

#![allow(clippy::unwrap_used)]

#[path = "support/little_server.rs"]
mod little_server;
#[path = "support/service.rs"]
mod service;

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use little_server::{Answer, LittleServer};
use serde_json::Value;
use service::{PATIENCE, Service};

fn jobs(url: &str, folder: &Path, arguments: &[&str]) -> Output {
    let token = ("SD_WORKER_TOKEN", "");
    jobs_with(url, folder, arguments, token)
}

fn jobs_with(url: &str, folder: &Path, arguments: &[&str], (name, value): (&str, &str)) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sd-worker"))
        .arg("jobs")
        .args(arguments)
        .env("SD_WORKER_URL", url)
        .env(name, value)
        .current_dir(folder)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

/// One worker, one job after the other, through all five commands.
#[test]
fn a_job_goes_from_submission_to_its_files() {
    let service = Service::start(&[]);
    let url = format!("http://{}/", service.address);
    let folder = tempfile::tempdir().unwrap();
    let remote = |arguments: &[&str]| jobs(&url, folder.path(), arguments);

    // The same flags here and there give the same file.
    let flags = ["a red circle on green grass", "--steps=3", "--seed=5", "--no-metadata", "--num-images=2"];
    let waited = remote(
        &[&["submit", "generate"], &flags[..], &["--wait", "--output=there.png", "--preview=way.jpg"]]
            .concat(),
    );
    let printed = out(&waited);
    assert!(
        printed.contains("there-1.png: 128x128, seed 5") && printed.contains("there-2.png: 128x128, seed 6"),
        "{printed}"
    );
    assert!(image::open(folder.path().join("way.jpg")).unwrap().width() <= 256);
    let local = Command::new(env!("CARGO_BIN_EXE_sd-worker"))
        .arg("generate")
        .args(flags)
        .args(["--output", "here.png"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    out(&local);
    let file = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert!(file("here-1.png") == file("there-1.png") && file("here-2.png") == file("there-2.png"));

    let id = out(&remote(&[&["submit", "--priority=high", "generate"], &flags[..]].concat()));
    assert!(id.starts_with("job-"), "{id}");
    let watched = remote(&["watch", &id]);
    assert!(out(&watched).contains("picture 1: 128x128 png, seed 6"), "{}", text(&watched.stdout));
    let fetched: Value = serde_json::from_str(&out(&remote(&["fetch", &id, "--json"]))).unwrap();
    assert_eq!(fetched["images"][1]["file"], "sd-worker-2.png", "{fetched}");
    assert_eq!(file("sd-worker-1.png"), file("here-1.png"));
    let refused = remote(&["fetch", &id, "--output=a.webp"]);
    assert!(refused.status.code() == Some(2) && text(&refused.stderr).contains("are png"));

    let transform = [
        "submit",
        "transform",
        "grass",
        "--image=here-1.png",
        "--strength=0.5",
        "--steps=4",
        "--wait",
        "--json",
    ];
    let report: Value = serde_json::from_str(&out(&remote(&transform))).unwrap();
    assert!(
        report["job_id"].as_str().unwrap().starts_with("job-") && report["images"][0]["width"] == 128,
        "{report}"
    );
    let inpaint = ["submit", "inpaint", "grass", "--image=here-1.png", "--mask=here-2.png", "--steps=4"];
    let last = out(&remote(&inpaint));
    assert!(
        out(&remote(&["watch", &last, "--json"])).lines().any(|line| line.contains("\"type\":\"complete\""))
    );

    let listed = out(&remote(&["list", "--state=completed"]));
    assert!(
        listed.lines().count() == 4 && listed.contains("image_inpaint") && listed.contains("red circle"),
        "{listed}"
    );
    let newest: Value = serde_json::from_str(&out(&remote(&["list", "--limit=1", "--json"]))).unwrap();
    assert_eq!(newest["jobs"][0]["job_id"], last.as_str());
    assert_eq!(out(&remote(&["list", "--state=failed,cancelled"])), "");
}

#[test]
fn cancelled_and_unknown_jobs_have_their_exit_codes() {
    let mut service = Service::start(&[]);
    let url = format!("http://{}", service.address);
    let folder = tempfile::tempdir().unwrap();
    let request =
        r#"{"operation": "image_generation", "prompt": "x", "width": 512, "height": 512, "steps": 150}"#;
    std::fs::write(folder.path().join("r.json"), request).unwrap();
    let id = out(&jobs(&url, folder.path(), &["submit", "request", "r.json"]));
    service.until("running", |service| service.get(&format!("/v1/jobs/{id}")).1.contains("\"progress\""));
    let fetched = jobs(&url, folder.path(), &["fetch", &id]);
    assert!(fetched.status.code() == Some(1) && text(&fetched.stderr).contains("not over"));
    let (watched, cancelled) = std::thread::scope(|scope| {
        let watched = scope.spawn(|| jobs(&url, folder.path(), &["watch", &id]));
        std::thread::sleep(Duration::from_millis(300));
        let cancelled = jobs(&url, folder.path(), &["cancel", &id, "job-none"]);
        (watched.join().unwrap(), cancelled)
    });
    let fetched = jobs(&url, folder.path(), &["fetch", &id]);
    for output in [&watched, &fetched] {
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        let said = text(&output.stderr);
        assert!(said.trim_end().ends_with("error: the job was cancelled"), "{said}");
    }
    assert!(text(&cancelled.stdout).contains(&id) && text(&cancelled.stderr).contains("job-none: not_found"));
    assert_eq!(cancelled.status.code(), Some(2));

    for (arguments, part) in [
        (&["submit", "generate", "x", "--steps=1000"][..], "steps"),
        (&["submit", "generate", "x", "--dtype=f32"], "--dtype"),
        (&["submit", "generate", "x", "--lora=a/b.safetensors"], "by name"),
        (&["submit", "generate", "x", "--model=other"], "model_not_found"),
        (&["submit", "generate", "x", "--output=x.txt"], "x.txt"),
        (&["watch", "job-none"], "not_found"),
    ] {
        let output = jobs(&url, folder.path(), arguments);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(part), "{arguments:?}: {said}");
    }
    let help = out(&jobs(&url, folder.path(), &["submit", "generate", "--help"]));
    assert!(help.contains("--model") && help.contains("--steps") && !help.contains("--dtype"), "{help}");
    let nobody = jobs("http://127.0.0.1:9", folder.path(), &["list"]);
    assert_eq!(nobody.status.code(), Some(1), "{}", text(&nobody.stderr));
}

#[test]
fn the_token_comes_from_a_file_or_the_environment() {
    let service = Service::start(&["--token", "tr0ub4dor"]);
    let url = format!("http://{}", service.address);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "tr0ub4dor\n").unwrap();
    let without = jobs(&url, folder.path(), &["list"]);
    assert!(without.status.code() == Some(2) && text(&without.stderr).contains("unauthorized"));
    out(&jobs(&url, folder.path(), &["list", "--token-file=token"]));
    out(&jobs_with(&url, folder.path(), &["list"], ("SD_WORKER_TOKEN", "tr0ub4dor")));
}

/// A certificate of one's own is trusted by its file, and by nothing else.
#[test]
fn a_worker_with_a_certificate_of_ones_own_is_trusted_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    write("cert.pem", &made.cert.pem());
    write("key.pem", &made.signing_key.serialize_pem());
    write("empty.pem", "");
    write("strange", "tr\u{f6}ub\n");
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let service = Service::start_unready(&["--tls-cert", &cert, "--tls-key", &key], &[]);
    let url = format!("https://{}", service.address);
    out(&jobs(&url, folder.path(), &["list", "--ca-cert=cert.pem"]));
    for (url, arguments, code, part) in [
        (&*url, &["list"][..], 1, "certificate"),
        (&url, &["list", "--ca-cert=empty.pem"], 2, "empty.pem: holds no certificate"),
        (&url, &["list", "--ca-cert=none.pem"], 2, "none.pem"),
        (&url, &["list", "--ca-cert=cert.pem", "--token-file=strange"], 2, "token-file strange"),
        (&url.replace("https", "http"), &["list"], 2, "speaks TLS"),
    ] {
        let output = jobs(url, folder.path(), arguments);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(code) && said.contains(part), "{arguments:?}: {said}");
    }
}

/// The server cuts the stream twice, once in the middle of an event; each time the next connection asks for what comes
/// after the last whole event, and nothing is told twice.
#[test]
fn a_watch_goes_on_where_the_connection_broke() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let queued = "id: 1\ndata: {\"type\":\"queued\",\"position\":0}\n\n";
    let step = |id: u32, step: u32| {
        format!(
            "id: {id}\ndata: {{\"type\":\"progress\",\"step\":{step},\"total_steps\":2,\"percent\":50.0,\
             \"elapsed_ms\":1,\"eta_ms\":1}}\n\n"
        )
    };
    let complete = "id: 4\ndata: {\"type\":\"complete\",\"images\":[],\"elapsed_ms\":2,\"timings\":{\"queued_ms\":0,\
                    \"text_encode_ms\":0,\"denoise_ms\":0,\"decode_ms\":0,\"encode_ms\":0}}\n\ndata: [DONE]\n\n";
    let answers = [
        format!("{head}{queued}: keep-alive\n\n{}id: 3\ndata: {{\"type\":\"prog", step(2, 1)),
        String::new(),
        format!("{head}{}", step(3, 2)),
        format!("{head}{complete}"),
    ];
    let server = LittleServer::start(move |number, _| Answer::Raw(answers[number].clone()));
    let folder = tempfile::tempdir().unwrap();
    let output = jobs(&server.url, folder.path(), &["watch", "job-1", "--json"]);
    let printed = out(&output);
    let types: Vec<String> = printed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(types, ["queued", "progress", "progress", "complete"]);
    for after in ["0", "2", "2", "3"] {
        let request = server.next(PATIENCE);
        assert_eq!(request.line, "GET /v1/jobs/job-1/stream");
        assert_eq!(request.header("last-event-id"), Some(after));
    }
}
