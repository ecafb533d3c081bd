//! Coming up and going down.

use std::net::SocketAddr;
use std::time::Duration;

use sd_engine::{GenerationEngine, JobRegistry, JobRouter, ModelBoard, RequestQueue};
use sd_http::{Api, ApiConfig, ServerConfig};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::generator::TestGenerator;
use crate::support::{Setup, Worker, listen, send};

fn get(path: &str) -> http::Request<String> {
    http::Request::get(path).body(String::new()).unwrap()
}

#[tokio::test]
async fn ready_only_when_a_model_can_serve() {
    let (queue, receiver) = RequestQueue::new(1);
    let models = ModelBoard::new();
    let router = JobRouter::new(queue, JobRegistry::in_memory().unwrap(), models.clone());
    let (addr, _stop, _serving) =
        listen(Api::new(router, ApiConfig::default()), ServerConfig::default()).await;

    let loading = send(addr, get("/ready")).await;
    assert_eq!((loading.status.as_u16(), loading.code().as_str()), (503, "not_ready"));
    assert!(loading.headers.contains_key("retry-after"));
    assert_eq!(send(addr, get("/health")).await.status, 200);
    assert_eq!(send(addr, get("/v1/models")).await.json()["models"], json!([]));
    let early = http::Request::post("/v1/jobs").header("content-type", "application/json");
    let body = r#"{"operation":"image_generation","prompt":"x"}"#;
    let refused = send(addr, early.body(body.to_owned()).unwrap()).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (503, "not_ready"));

    models.failed("config.json is missing");
    assert!(send(addr, get("/ready")).await.text().contains("config.json is missing"));

    let _engine = GenerationEngine::new(TestGenerator::new(), receiver, models.clone()).start().unwrap();
    while models.ready().is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(send(addr, get("/ready")).await.json(), json!({"status": "ready", "model": "test-model"}));
}

#[tokio::test]
async fn shutdown_finishes_what_runs_and_refuses_what_is_new() {
    let worker = Worker::start().await;
    let running = worker.occupy().await;
    let waiting = worker.submit("waits").await;
    worker.router.shutdown();

    let refused = worker.post(&json!({"operation": "image_generation", "prompt": "new"})).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (503, "shutting_down"));
    let ready = worker.get("/ready").await;
    assert_eq!((ready.status.as_u16(), ready.code().as_str()), (503, "shutting_down"));
    assert_eq!(worker.get("/health").await.status, 200);

    let (finished, ended, ()) = tokio::join!(worker.stream(&running), worker.stream(&waiting), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        worker.gate.open();
    });
    assert_eq!(finished.last().unwrap().data, "[DONE]");
    assert_eq!(ended[ended.len() - 2].json()["code"], "shutting_down");

    let Worker { addr, models, engine, stop, serving, .. } = worker;
    tokio::time::timeout(Duration::from_secs(5), models.stopped()).await.unwrap();
    engine.join().unwrap();
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(5), serving).await.unwrap().unwrap();
    assert!(TcpStream::connect(addr).await.is_err(), "nobody listens any more");
}

/// A stream that has brought its first event.
async fn open_stream(addr: SocketAddr, job: &str) -> TcpStream {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let head = format!("GET {job}/stream HTTP/1.1\r\nhost: worker\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains("queued") {
        assert_ne!(socket.read_buf(&mut text).await.unwrap(), 0, "the stream must stay open");
    }
    socket
}

#[tokio::test]
async fn a_stopped_server_lets_an_open_stream_end() {
    let worker = Worker::start().await;
    let running = worker.occupy().await;
    let Worker { addr, gate, stop, serving, .. } = worker;
    let mut stream = open_stream(addr, &running).await;
    stop.send(()).unwrap();
    while TcpStream::connect(addr).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    gate.open();
    let mut rest = String::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert!(rest.contains("data: [DONE]\n\n"), "{rest}");
    tokio::time::timeout(Duration::from_secs(5), serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stopped_server_does_not_wait_for_ever() {
    let server = ServerConfig { grace: Duration::from_millis(50), ..ServerConfig::default() };
    let worker = Worker::with(Setup { server, ..Setup::default() }).await;
    let running = worker.occupy().await;
    let Worker { addr, gate, stop, serving, .. } = worker;
    let mut stream = open_stream(addr, &running).await;
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(5), serving).await.unwrap().unwrap();
    let mut rest = String::new();
    let cut_off = stream.read_to_string(&mut rest);
    let _broken_or_ended = tokio::time::timeout(Duration::from_secs(5), cut_off).await.unwrap();
    assert!(!rest.contains("[DONE]"), "{rest}");
    gate.open();
}
