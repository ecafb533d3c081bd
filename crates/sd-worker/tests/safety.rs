//! Tokens, TLS and the log of the real binary.

#![allow(clippy::unwrap_used)]

#[path = "support/logged.rs"]
mod logged;

use std::path::Path;
use std::process::{Command, Output};

use logged::Service;
use serde_json::{Value, json};

const ANNA: &str = "authorization: Bearer t0p-anna-5ecret\r\n";
const JSON: &str = "content-type: application/json\r\n";

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

/// Runs `serve` where it must refuse to start.
fn refused(listen: &str, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_sd-worker"))
        .args(["serve", "--listen", listen])
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!((status.code(), stdout.len()), (Some(2), 0), "{arguments:?}: {said}");
    said
}

#[test]
fn what_would_not_be_safe_is_refused_before_anything_listens() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    let file = tokens.to_str().unwrap();
    write(&tokens, "anna:hush-hush\nanna:other-hush\n");
    assert!(refused("0.0.0.0:0", &[], &[]).contains("set a token"));
    /// Flags, variables, and what is told.
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 8] = [
        (&["--tokens-file", file], &[], "line 2: the name `anna` stands on line 1 already"),
        (&["--tokens-file", "/no/such/file"], &[], "/no/such/file: "),
        (&["--tokens-file", file], &[("SD_WORKER_TOKEN", "hush-hush")], "cannot be used with"),
        (&[], &[("SD_WORKER_TOKEN", "hush hush")], "a token is one or more visible ASCII characters"),
        (&["--cors-origin", "*"], &[], "without a token"),
        (&["--cors-origin", "draw.example"], &[], "is no origin"),
        (&["--tls-cert", file], &[], "--tls-key"),
        (&["--tls-cert", file, "--tls-key", file], &[], "holds no certificate"),
    ];
    for (arguments, variables, told) in cases {
        let said = refused("127.0.0.1:0", arguments, variables);
        assert!(said.contains(told), "{arguments:?}: {said}");
        assert!(!said.contains("hush"), "{arguments:?} tells a token: {said}");
    }
    let help = Command::new(env!("CARGO_BIN_EXE_sd-worker"))
        .args(["serve", "--help"])
        .env("SD_WORKER_TOKEN", "hush-hush")
        .output()
        .unwrap();
    assert!(!String::from_utf8_lossy(&help.stdout).contains("hush"));
}

/// Everything that might be logged happens once, and the log is as talkative as it can be.
fn use_it_in_every_way(service: &Service, tokens: &Path) {
    let prompt = "a zebra in pyjamas {by day|by night} ".repeat(40);
    let operation = json!({"operation": "image_generation", "prompt": prompt, "negative_prompt": "no giraffes",
        "steps": 2, "preview": {"every": 1}});
    let job = service.submit(ANNA, &operation);
    let story = service.send("GET", &format!("{job}/stream"), ANNA, b"");
    assert!(story.text().contains("data: [DONE]"), "{}", story.text());
    for path in ["", "/images/0", "/images/9"] {
        service.send("GET", &format!("{job}{path}"), ANNA, b"");
    }
    service.send("DELETE", &job, ANNA, b"");
    let mut large = operation.clone();
    (large["width"], large["height"]) = (json!(1024), json!(1024));
    let job = service.submit(ANNA, &large);
    assert!(service.send("GET", &format!("{job}/stream"), ANNA, b"").text().contains("[ERROR]"));
    let headers = format!("{ANNA}{JSON}");
    for broken in [
        json!({"operation": "image_generation", "prompt": "a zebra", "steps": 0, "colour": "zebra"})
            .to_string(),
        json!({"operation": "image_generation", "prompt": "a zebra", "loras": [{"name": "zebra"}]})
            .to_string(),
        "{\"prompt\": \"a zebra".to_owned(),
    ] {
        assert!(service.send("POST", "/v1/jobs", &headers, broken.as_bytes()).status >= 400);
    }
    let form = "--b\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na zebra\r\n--b--\r\n";
    let kind = format!("{ANNA}content-type: multipart/form-data; boundary=b\r\n");
    assert_eq!(service.send("POST", "/v1/jobs", &kind, form.as_bytes()).status, 400);
    let wrong = "authorization: Bearer t0p-wrong-5ecret\r\n";
    assert_eq!(service.send("GET", "/v1/jobs", wrong, b"").status, 401);
    write(tokens, "anna:t0p-anna-5ecret:generate\nt0p-broken-5ecret\n");
    service.until("aware of the broken file", || service.log().contains("line 2: is not `name:token`"));
    assert_eq!(service.send("GET", "/v1/jobs", ANNA, b"").status, 200, "the tokens stay as they were");
}

#[test]
fn the_log_tells_no_prompt_unless_asked_and_never_a_token() {
    for asked in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let tokens = folder.path().join("tokens");
        write(&tokens, "anna:t0p-anna-5ecret\n");
        let file = tokens.to_str().unwrap();
        let flags = ["--tokens-file", file, "--memory-limit", "30MB", "--log-prompts"];
        let flags = if asked { &flags[..] } else { &flags[..4] };
        let service = Service::start(flags, &[("SD_WORKER_LOG", "trace")]).ready();
        use_it_in_every_way(&service, &tokens);
        let log = service.log();
        assert!(log.contains("accepted") && log.contains("anna"), "{log}");
        for secret in ["5ecret", "Bearer"] {
            assert!(!log.contains(secret), "{secret}:\n{log}");
        }
        for text in ["zebra", "giraffe"] {
            assert_eq!(log.contains(text), asked, "{text}:\n{log}");
        }
    }
}

#[test]
fn the_log_names_the_request_that_a_job_came_by() {
    let service = Service::start(&["--log-format", "json"], &[]).ready();
    let operation = br#"{"operation": "image_generation", "prompt": "a star", "steps": 1}"#;
    let head = "content-type: application/json\r\nx-request-id: order-4711\r\n";
    let job = service.send("POST", "/v1/jobs", head, operation).json()["job_id"].as_str().unwrap().to_owned();
    let line = || {
        let log = service.log();
        log.lines().find(|line| line.contains("\"accepted\"") && line.contains(&job)).map(str::to_owned)
    };
    service.until("told", || line().is_some());
    let line: Value = serde_json::from_str(&line().unwrap()).unwrap();
    assert_eq!(line["fields"]["request_id"], "order-4711", "{line}");
}

#[test]
fn a_changed_tokens_file_counts_within_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    write(&tokens, "anna:t0p-anna-5ecret\n");
    let service = Service::start(&["--tokens-file", tokens.to_str().unwrap()], &[]).ready();
    #[cfg(unix)]
    assert!(service.log().contains("chmod 600"), "{}", service.log());
    let status = |token: &str| {
        service.send("GET", "/v1/info", &format!("authorization: Bearer {token}\r\n"), b"").status
    };
    assert_eq!((status("t0p-anna-5ecret"), status("t0p-ben-5ecret")), (200, 401));
    write(&tokens, "ben:t0p-ben-5ecret\n");
    service.until("open to ben", || status("t0p-ben-5ecret") == 200);
    assert_eq!(status("t0p-anna-5ecret"), 401);
}

#[test]
fn tls_by_flags_and_a_renewed_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let renew = || {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        write(&cert, &made.cert.pem());
        write(&key, &made.signing_key.serialize_pem());
        made.cert.pem()
    };
    let first = renew();
    let service =
        Service::start(&["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()], &[]);
    assert_eq!(service.scheme, "https");
    let ask = |pem: &str| {
        use ureq::tls::{Certificate, RootCerts, TlsConfig};
        let roots = RootCerts::new_with_certs(&[Certificate::from_pem(pem.as_bytes()).unwrap()]);
        let tls = TlsConfig::builder().root_certs(roots).build();
        let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().tls_config(tls).build());
        agent.get(format!("https://{}/health", service.address)).call().map(|answer| answer.status().as_u16())
    };
    assert_eq!(ask(&first).unwrap(), 200);
    let second = renew();
    service.until("showing the renewed certificate", || ask(&second).is_ok());
    assert!(ask(&first).is_err(), "the old one is no longer shown");
    assert!(service.send("GET", "/health", "", b"").text().contains("speaks TLS"));
}

/// Whatever names a file in a request is a name among those that the operator put there, never a path.
#[test]
fn no_field_of_a_request_opens_a_file() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/sd15");
    let model = format!("{fixtures}/model");
    let loras = tempfile::tempdir().unwrap();
    std::fs::copy(format!("{fixtures}/loras/kohya.safetensors"), loras.path().join("ink.safetensors"))
        .unwrap();
    let folder = loras.path().to_str().unwrap();
    let service = Service::start(&["--model", &model, "--lora-dir", folder], &[]).ready();
    let lora_file = format!("{folder}/ink.safetensors");
    let paths =
        [&lora_file[..], "/etc/passwd", "../ink", "./ink", "ink.safetensors", "file:///etc/passwd", &model];
    let request = |change: Value| {
        let mut body =
            json!({"operation": "image_transform", "prompt": "x", "steps": 1, "init_image": "aGVsbG8="});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        service.send("POST", "/v1/jobs", JSON, body.to_string().as_bytes())
    };
    for path in paths {
        let cases = [
            ("loras[0].name", json!({"loras": [{"name": path}]})),
            ("control", json!({"control": [{"kind": path, "image": "aGVsbG8="}]})),
            ("init_image", json!({"init_image": path})),
            ("control[0].image", json!({"control": [{"kind": "canny", "image": path}]})),
        ];
        for (field, change) in cases {
            let answer = request(change);
            assert!((400..500).contains(&answer.status), "{field} {path}: {}", answer.text());
            let fields = answer.json()["error"]["fields"].to_string();
            assert!(fields.contains(&format!("\"{field}\"")), "{field} {path}: {}", answer.text());
        }
        // The model's own path is its name where the operator gave it so.
        if path != model {
            let body = json!({"operation": "image_generation", "prompt": "x", "model": path});
            let answer = service.send("POST", "/v1/jobs", JSON, body.to_string().as_bytes());
            assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        }
        assert_eq!(service.send("GET", &format!("/v1/models/..%2f..{path}"), "", b"").status, 404);
    }
    let known =
        json!({"operation": "image_generation", "prompt": "x", "steps": 1, "loras": [{"name": "ink"}]});
    service.submit("", &known);
}

/// Prompts and pictures stand there.
#[test]
#[cfg(unix)]
fn a_data_directory_that_the_worker_makes_is_its_users_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("new/data");
    let _service = Service::start(&["--data-dir", data.to_str().unwrap()], &[]);
    for made in [data.parent().unwrap(), &data] {
        let mode = std::fs::metadata(made).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", made.display());
    }
}
