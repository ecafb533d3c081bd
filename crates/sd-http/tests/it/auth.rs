//! Who may use the worker.

use http::Request;
use sd_engine::{JobRegistry, JobRouter, ModelBoard, RequestQueue, Retention};
use sd_http::{Api, ApiConfig, ApiToken, ServeError, Server, ServerConfig, Tokens};

use crate::support::{Setup, Worker};

fn guarded() -> ApiConfig {
    let token = ApiToken::new("s3cret").unwrap();
    ApiConfig { tokens: Some(Tokens::single(token)), ..ApiConfig::default() }
}

async fn worker() -> Worker {
    Worker::with(Setup { api: guarded(), ..Setup::default() }).await
}

#[tokio::test]
async fn everything_but_the_probes_is_guarded() {
    let worker = worker().await;
    for path in ["/v1/jobs", "/v1/jobs/job-1", "/v1/jobs/job-1/stream", "/v1/models", "/v1/info", "/nothing"]
    {
        let answer = worker.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (401, "unauthorized"), "{path}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    assert_eq!(worker.delete("/v1/jobs/job-1").await.status, 401);
    assert_eq!(worker.post_text("{}").await.status, 401);
    for path in ["/health", "/ready"] {
        assert_eq!(worker.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn the_token_opens_and_another_does_not() {
    let worker = worker().await;
    let get = |token: &str| {
        let request = Request::get("/v1/info").header("authorization", format!("Bearer {token}"));
        worker.send(request.body(String::new()).unwrap())
    };
    assert_eq!(get("s3cret").await.status, 200);
    let refused = get("s3cres").await;
    assert_eq!(refused.status, 401);
    assert!(!refused.text().contains("s3cre"), "neither token is told");
}

#[tokio::test]
async fn without_a_token_only_loopback_is_bound() {
    let (queue, _receiver) = RequestQueue::new(1);
    let router = JobRouter::new(queue, JobRegistry::new(Retention::default()), ModelBoard::new());
    let bind = |addr: &str, config| {
        Server::bind(addr.parse().unwrap(), Api::new(router.clone(), config), ServerConfig::default())
    };
    for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let error = bind(open, ApiConfig::default()).await.unwrap_err();
        assert!(matches!(error, ServeError::TokenRequired(_)), "{open}: {error}");
        assert!(error.to_string().contains("set a token"), "{error}");
    }
    assert!(bind("127.0.0.1:0", ApiConfig::default()).await.is_ok());
    assert!(bind("0.0.0.0:0", guarded()).await.is_ok());
}

#[tokio::test]
async fn a_taken_address_is_an_error_that_names_it() {
    let worker = worker().await;
    let error = Server::bind(worker.addr, worker.api.clone(), ServerConfig::default()).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot listen on {}: ", worker.addr)), "{error}");
}
