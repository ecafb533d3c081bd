//! Several callers with tokens of their own, and the file that names them.

use std::path::Path;

use http::Request;
use sd_http::{ApiConfig, TokensFile};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Answer, Setup, Worker};

const TOKENS: &str =
    "# who may\nanna:t-anna\nben:t-ben:generate\n\nops:t-ops:admin\nroot:t-root:generate,admin\n";

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

fn file(text: &str) -> (TempDir, TokensFile) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    write(&path, text);
    let file = TokensFile::open(path).unwrap();
    (folder, file)
}

async fn worker(file: &TokensFile) -> Worker {
    let api = ApiConfig { tokens: Some(file.tokens()), ..ApiConfig::default() };
    Worker::with(Setup { api, ..Setup::default() }).await
}

async fn ask(worker: &Worker, token: &str, method: &str, path: &str, body: &str) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json");
    worker.send(request.body(body.to_owned()).unwrap()).await
}

async fn submit(worker: &Worker, token: &str, prompt: &str) -> String {
    let body = json!({"operation": "image_generation", "prompt": prompt}).to_string();
    let answer = ask(worker, token, "POST", "/v1/jobs", &body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    format!("/v1/jobs/{}", answer.json()["job_id"].as_str().unwrap())
}

async fn callers_of(worker: &Worker, token: &str) -> Vec<Value> {
    let list = ask(worker, token, "GET", "/v1/jobs", "").await.json();
    list["jobs"].as_array().unwrap().iter().map(|job| job["caller"].clone()).collect()
}

#[tokio::test]
async fn a_caller_sees_its_own_jobs_and_an_admin_all() {
    let (_folder, file) = file(TOKENS);
    let worker = worker(&file).await;
    let annas = submit(&worker, "t-anna", "a").await;
    let bens = submit(&worker, "t-ben", "b").await;
    for job in [&annas, &bens] {
        let stream = ask(&worker, "t-root", "GET", &format!("{job}/stream"), "").await;
        assert!(stream.text().contains("data: [DONE]"), "{}", stream.text());
    }
    assert_eq!(callers_of(&worker, "t-anna").await, ["anna"]);
    assert_eq!(callers_of(&worker, "t-ben").await, ["ben"]);
    for admin in ["t-ops", "t-root"] {
        assert_eq!(callers_of(&worker, admin).await, ["anna", "ben"], "{admin}");
    }
    for path in ["", "/stream", "/images/0"] {
        let path = format!("{annas}{path}");
        assert_eq!(ask(&worker, "t-anna", "GET", &path, "").await.status, 200, "{path}");
        assert_eq!(ask(&worker, "t-ops", "GET", &path, "").await.status, 200, "{path}");
        let other = ask(&worker, "t-ben", "GET", &path, "").await;
        assert_eq!((other.status.as_u16(), other.code().as_str()), (404, "not_found"), "{path}");
        let none = ask(&worker, "t-ben", "GET", &path.replace(&annas[9..], "job-none"), "").await;
        assert_eq!(none.status, 404, "what is another's looks like what is not there");
    }
}

#[tokio::test]
async fn a_caller_cancels_its_own_jobs_and_an_admin_all() {
    let (_folder, file) = file(TOKENS);
    let worker = worker(&file).await;
    let running = submit(&worker, "t-anna", "gated").await;
    worker.gate.reached().await;
    let waiting = submit(&worker, "t-anna", "waits").await;
    assert_eq!(ask(&worker, "t-ben", "DELETE", &waiting, "").await.status, 404);
    assert_eq!(ask(&worker, "t-anna", "GET", &waiting, "").await.json()["state"], "queued");
    assert_eq!(ask(&worker, "t-anna", "DELETE", &waiting, "").await.status, 200);
    assert_eq!(ask(&worker, "t-ops", "DELETE", &running, "").await.status, 202);
    worker.gate.open();
}

#[tokio::test]
async fn a_token_without_the_scope_is_told_which_one_is_missing() {
    let (_folder, file) = file(TOKENS);
    let worker = worker(&file).await;
    let body = json!({"operation": "image_generation", "prompt": "x"}).to_string();
    let refused = ask(&worker, "t-ops", "POST", "/v1/jobs", &body).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (403, "forbidden"));
    assert!(refused.text().contains("the scope `generate`; the token has admin"), "{}", refused.text());
    // The web UI's API is for those who draw, all of it: each caller has settings and progress of its own there.
    for path in ["samplers", "options", "progress", "sd-models"] {
        let path = format!("/sdapi/v1/{path}");
        assert_eq!(ask(&worker, "t-anna", "GET", &path, "").await.status, 200, "{path}");
        let refused = ask(&worker, "t-ops", "GET", &path, "").await;
        assert_eq!((refused.status.as_u16(), &refused.json()["error"]), (403, &json!("forbidden")), "{path}");
    }
    let refused = ask(&worker, "t-ops", "POST", "/v1/images/generations", &body).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (403, "forbidden"));
    for token in ["t-anna", "t-ops"] {
        for path in ["/v1/models", "/v1/info"] {
            assert_eq!(ask(&worker, token, "GET", path, "").await.status, 200, "{token} {path}");
        }
    }
    for path in ["/v1/models/test-model/load", "/v1/models/test-model/unload"] {
        let refused = ask(&worker, "t-anna", "POST", path, "").await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (403, "forbidden"), "{path}");
    }
    let load = "/v1/models/test-model/load";
    assert!(ask(&worker, "t-ops", "POST", load, "").await.status.is_success());
    assert_eq!(ask(&worker, "t-anne", "GET", "/v1/info", "").await.status, 401);
}

/// They tell totals, as `/v1/info` does: any token reads them, and whoever has none does not.
#[tokio::test]
async fn metrics_are_for_every_token_and_for_nobody_else() {
    let (_folder, file) = file(TOKENS);
    let metrics = Some(crate::observability::metrics());
    let api = ApiConfig { tokens: Some(file.tokens()), metrics: metrics.clone(), ..ApiConfig::default() };
    let worker = Worker::with(Setup { api, ..Setup::default() }).await;
    let job = submit(&worker, "t-anna", "a secret prompt").await;
    ask(&worker, "t-anna", "GET", &format!("{job}/stream"), "").await;
    for token in ["t-anna", "t-ben", "t-ops", "t-root"] {
        let answer = ask(&worker, token, "GET", "/metrics", "").await;
        assert_eq!(answer.status, 200, "{token}");
        let text = answer.text();
        assert!(text.contains("sd_worker_jobs_accepted_total"), "{text}");
        for untold in ["anna", "secret prompt", &job[9..]] {
            assert!(!text.contains(untold), "{untold}: {text}");
        }
    }
    assert_eq!(ask(&worker, "t-nobody", "GET", "/metrics", "").await.status, 401);
    let without = worker.get("/metrics").await;
    assert_eq!((without.status.as_u16(), without.code().as_str()), (401, "unauthorized"));

    let open = ApiConfig { metrics, ..ApiConfig::default() };
    let open = Worker::with(Setup { api: open, ..Setup::default() }).await;
    assert_eq!(open.get("/metrics").await.status, 200, "without tokens there is nobody to ask");
}

#[tokio::test]
async fn a_changed_file_counts_at_once_and_a_broken_one_does_not() {
    let (folder, mut file) = file("anna:t-anna\n");
    let path = folder.path().join("tokens");
    let worker = worker(&file).await;
    let status = |token: &'static str| ask(&worker, token, "GET", "/v1/info", "");
    assert!(!file.refresh().unwrap(), "nothing has changed");

    write(&path, "ben:t-ben\n");
    assert!(file.refresh().unwrap());
    assert_eq!((status("t-anna").await.status.as_u16(), status("t-ben").await.status.as_u16()), (401, 200));

    for broken in ["ben:t-ben\nben:hush\n", "hush\n", ""] {
        write(&path, broken);
        let error = file.refresh().unwrap_err().to_string();
        assert!(!error.contains("hush") && !error.contains("t-ben"), "{error}");
        assert!(!file.refresh().unwrap(), "the same fault is told once");
        assert_eq!(status("t-ben").await.status, 200, "the tokens stay");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(file.refresh().is_err() && !file.refresh().unwrap());
    assert_eq!(status("t-ben").await.status, 200, "the tokens stay");
    write(&path, "carl:t-carl\n");
    assert!(file.refresh().unwrap());
    assert_eq!((status("t-ben").await.status.as_u16(), status("t-carl").await.status.as_u16()), (401, 200));
}

#[tokio::test]
async fn wrong_files_are_refused_with_their_name() {
    let folder = tempfile::tempdir().unwrap();
    let missing = TokensFile::open(folder.path().join("none")).unwrap_err().to_string();
    assert!(missing.contains("/none: "), "{missing}");
    let (path, huge) = (folder.path().join("huge"), "#".repeat((1 << 20) + 1));
    write(&path, &huge);
    assert!(TokensFile::open(path).unwrap_err().to_string().contains("larger than"));
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_others_can_read_is_noticed() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, file) = file(TOKENS);
    let mode = |mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(folder.path().join("tokens"), permissions).unwrap();
        file.is_open_to_others()
    };
    assert!(mode(0o644) && mode(0o620) && !mode(0o600) && !mode(0o400));
}
