//! Browsers: pages of other origins, names that lead here, and what answers tell them.

use http::Request;
use sd_http::{AllowedHosts, ApiConfig, ApiToken, CorsOrigins, Tokens};

use crate::support::{Answer, Setup, Worker};

const LISTED: &str = "https://draw.example";
const STRANGE: &str = "https://evil.example";
const BODY: &str = r#"{"operation":"image_generation","prompt":"x"}"#;

async fn worker(api: ApiConfig) -> Worker {
    Worker::with(Setup { api, ..Setup::default() }).await
}

fn listed() -> ApiConfig {
    ApiConfig { cors: CorsOrigins::new([LISTED]).unwrap(), ..ApiConfig::default() }
}

async fn ask(worker: &Worker, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if method == "POST" { BODY } else { "" };
    worker.send(request.body(body.to_owned()).unwrap()).await
}

fn preflight(origin: &'static str) -> [(&'static str, &'static str); 3] {
    [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type,idempotency-key"),
    ]
}

#[tokio::test]
async fn without_a_list_no_page_is_let_in() {
    let worker = worker(ApiConfig::default()).await;
    let answer = ask(&worker, "OPTIONS", "/v1/jobs", &preflight(LISTED)).await;
    assert_eq!(answer.status, 405);
    let read = ask(&worker, "GET", "/v1/jobs", &[("origin", LISTED)]).await;
    for answer in [answer, read] {
        assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("access-control-")));
    }
}

#[tokio::test]
async fn a_listed_page_is_told_what_it_may_and_reads_the_answer() {
    let tokens = Some(Tokens::single(ApiToken::new("s3cret").unwrap()));
    let worker = worker(ApiConfig { tokens, ..listed() }).await;
    // A browser asks without the token.
    let answer = ask(&worker, "OPTIONS", "/v1/jobs", &preflight(LISTED)).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
    assert_eq!(answer.headers["access-control-allow-origin"], LISTED);
    assert_eq!(answer.headers["access-control-allow-methods"], "GET, HEAD, POST");
    let allowed = answer.headers["access-control-allow-headers"].to_str().unwrap().to_ascii_lowercase();
    for name in ["authorization", "content-type", "last-event-id", "idempotency-key"] {
        assert!(allowed.split(", ").any(|allowed| allowed == name), "{name}: {allowed}");
    }
    let job = ask(&worker, "OPTIONS", "/v1/jobs/job-1", &preflight(LISTED)).await;
    assert_eq!(job.headers["access-control-allow-methods"], "GET, HEAD, DELETE");

    let token = ("authorization", "Bearer s3cret");
    let origin = ("origin", LISTED);
    let made = ask(&worker, "POST", "/v1/jobs", &[origin, token, ("content-type", "application/json")]).await;
    assert_eq!(made.status, 202);
    let refused = ask(&worker, "GET", "/v1/info", &[origin]).await;
    assert_eq!(refused.status, 401);
    for answer in [made, refused] {
        assert_eq!(answer.headers["access-control-allow-origin"], LISTED, "errors can be read too");
        assert_eq!(answer.headers["vary"], "Origin");
        let exposed = answer.headers["access-control-expose-headers"].to_str().unwrap();
        assert!(exposed.contains("Location") && exposed.contains("Retry-After"), "{exposed}");
        assert!(!answer.headers.contains_key("access-control-allow-credentials"));
    }
}

#[tokio::test]
async fn an_unlisted_page_is_refused() {
    let worker = worker(listed()).await;
    for strange in [STRANGE, "http://draw.example", "https://draw.example:8443", "null"] {
        let answer = ask(&worker, "OPTIONS", "/v1/jobs", &preflight(strange)).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (403, "forbidden"), "{strange}");
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{strange}");
        let read = ask(&worker, "GET", "/v1/jobs", &[("origin", strange)]).await;
        assert!(!read.headers.contains_key("access-control-allow-origin"), "{strange}");
        assert_eq!(read.headers["vary"], "Origin");
    }
}

#[tokio::test]
async fn all_pages_only_where_that_was_asked_for() {
    let cors = CorsOrigins::new(["*"]).unwrap();
    let worker = worker(ApiConfig { cors, ..ApiConfig::default() }).await;
    let read = ask(&worker, "GET", "/v1/jobs", &[("origin", STRANGE)]).await;
    assert_eq!(read.headers["access-control-allow-origin"], "*");
}

/// A form needs no preflight: without a look at the origin any page could draw.
#[tokio::test]
async fn what_a_page_of_another_origin_sends_without_asking_is_refused() {
    let worker = worker(ApiConfig::default()).await;
    let form = ("content-type", "multipart/form-data; boundary=x");
    for origin in [STRANGE, "null", "http://worker:1", "worker"] {
        let answer = ask(&worker, "POST", "/v1/jobs", &[form, ("origin", origin)]).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (403, "forbidden"), "{origin}");
    }
    let json = ("content-type", "application/json");
    assert_eq!(ask(&worker, "POST", "/v1/jobs", &[json, ("origin", STRANGE)]).await.status, 403);
    assert_eq!(ask(&worker, "DELETE", "/v1/jobs/job-1", &[("origin", STRANGE)]).await.status, 403);
    // The worker's own page, and clients that are no browsers.
    assert_eq!(ask(&worker, "POST", "/v1/jobs", &[json, ("origin", "http://worker")]).await.status, 202);
    assert_eq!(ask(&worker, "POST", "/v1/jobs", &[json]).await.status, 202);
}

#[tokio::test]
async fn a_name_that_was_made_to_lead_here_is_refused() {
    let hosts = AllowedHosts::local_and(["worker".to_owned()]);
    let known = worker(ApiConfig { hosts, ..ApiConfig::default() }).await;
    assert_eq!(known.get("/v1/jobs").await.status, 200);
    let strange = worker(ApiConfig { hosts: AllowedHosts::local_and([]), ..ApiConfig::default() }).await;
    let answer = strange.get("/v1/jobs").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (403, "forbidden"));
    let hosts = [&strange.addr.to_string()[..], "localhost:8600", "[::1]", "127.0.0.1"];
    for host in hosts {
        let head = format!("GET /v1/jobs HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let answer = crate::support::raw(strange.addr, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
    }
}

#[tokio::test]
async fn every_answer_tells_browsers_to_run_and_frame_nothing() {
    let worker = worker(ApiConfig::default()).await;
    let job = worker.submit("a cat").await;
    worker.stream(&job).await;
    let paths = ["/health", "/nothing", "/v1/jobs", "/v1/jobs/job-none"];
    for path in
        paths.map(str::to_owned).into_iter().chain([format!("{job}/images/0"), format!("{job}/stream")])
    {
        let answer = worker.get(&path).await;
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{path}");
        assert_eq!(answer.headers["x-frame-options"], "DENY", "{path}");
        assert_eq!(answer.headers["referrer-policy"], "no-referrer", "{path}");
        assert_eq!(answer.headers["cross-origin-resource-policy"], "same-origin", "{path}");
        let cached = answer.headers["cache-control"].to_str().unwrap();
        assert_eq!(cached.contains("no-store"), !path.contains("/images/"), "{path}: {cached}");
    }
}
