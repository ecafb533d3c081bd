//! A worker on a socket, and a client for it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use sd_engine::{
    EngineHandle, GenerationEngine, JobRegistry, JobRouter, ModelBoard, RequestQueue, Retention, Store,
};
use sd_http::{Api, ApiConfig, Server, ServerConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::generator::{Gate, Log, TestGenerator};

pub(crate) struct Worker {
    pub(crate) addr: SocketAddr,
    pub(crate) api: Api,
    pub(crate) router: JobRouter,
    pub(crate) models: ModelBoard,
    pub(crate) engine: EngineHandle,
    pub(crate) gate: Gate,
    pub(crate) log: Log,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) serving: JoinHandle<()>,
}

pub(crate) struct Setup {
    pub(crate) api: ApiConfig,
    pub(crate) server: ServerConfig,
    pub(crate) retention: Retention,
    pub(crate) store: Store,
    pub(crate) capacity: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            api: ApiConfig::default(),
            server: ServerConfig { grace: Duration::from_secs(2), ..ServerConfig::default() },
            retention: Retention::default(),
            store: Store::in_memory().unwrap(),
            capacity: 8,
        }
    }
}

impl Worker {
    pub(crate) async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let generator = TestGenerator::new();
        let (gate, log) = (generator.gate.clone(), generator.log.clone());
        let (queue, receiver) = RequestQueue::new(setup.capacity);
        let models = ModelBoard::new();
        let router =
            JobRouter::new(queue, JobRegistry::new(setup.store, setup.retention).unwrap(), models.clone());
        let engine = GenerationEngine::new(generator, receiver, models.clone()).start().unwrap();
        models.settled().await;
        let api = Api::new(router.clone(), setup.api);
        let (addr, stop, serving) = listen(api.clone(), setup.server).await;
        Self { addr, api, router, models, engine, gate, log, stop, serving }
    }

    pub(crate) async fn send(&self, request: Request<String>) -> Answer {
        send(self.addr, request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(String::new()).unwrap()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Request::delete(path).body(String::new()).unwrap()).await
    }

    pub(crate) async fn post(&self, body: &Value) -> Answer {
        self.post_text(body.to_string()).await
    }

    pub(crate) async fn post_text(&self, body: impl Into<String>) -> Answer {
        let request = Request::post("/v1/jobs").header("content-type", "application/json");
        self.send(request.body(body.into()).unwrap()).await
    }

    /// Submits a generation that must be accepted, and gives the job's address.
    pub(crate) async fn submit(&self, prompt: &str) -> String {
        let answer = self.post(&json!({"operation": "image_generation", "prompt": prompt})).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
        format!("/v1/jobs/{}", answer.json()["job_id"].as_str().unwrap())
    }

    /// Submits a gated generation and waits until the engine is in the middle of its first step.
    pub(crate) async fn occupy(&self) -> String {
        let job = self.submit("gated occupation").await;
        self.gate.reached().await;
        job
    }

    /// The whole stream of a job.
    pub(crate) async fn stream(&self, job: &str) -> Vec<Event> {
        self.stream_after(job, None).await
    }

    pub(crate) async fn stream_after(&self, job: &str, last: Option<&str>) -> Vec<Event> {
        let mut request = Request::get(format!("{job}/stream"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = self.send(request.body(String::new()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!(answer.headers["content-type"], "text/event-stream");
        events(&answer.text())
    }
}

pub(crate) async fn listen(
    api: Api,
    config: ServerConfig,
) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), api, config).await.unwrap();
    let addr = server.local_addr();
    let (stop, stopped) = oneshot::channel();
    let stopped = async {
        // A test that ends without a word leaves the server to its runtime.
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    (addr, stop, tokio::spawn(server.serve(stopped)))
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of an error in the one form that errors have.
    pub(crate) fn code(&self) -> String {
        let body = self.json();
        assert!(body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
        body["error"]["code"].as_str().unwrap().to_owned()
    }

    pub(crate) fn fields(&self) -> Vec<String> {
        let body = self.json();
        let fields = body["error"]["fields"].as_array().cloned().unwrap_or_default();
        fields.iter().map(|field| field["field"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) async fn of<B>(response: Response<B>) -> Self
    where
        B: hyper::body::Body<Data = Bytes>,
        B::Error: std::fmt::Debug,
    {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Self { status: head.status, headers: head.headers, body }
    }
}

/// One request on a connection of its own.
pub(crate) async fn send(addr: SocketAddr, request: Request<String>) -> Answer {
    let exchange = async {
        let socket = TcpStream::connect(addr).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = request.map(|body| Full::new(Bytes::from(body)));
        request.headers_mut().insert("host", "worker".parse().unwrap());
        let answer = Answer::of(sender.send_request(request).await.unwrap()).await;
        connection.abort();
        answer
    };
    tokio::time::timeout(Duration::from_secs(10), exchange).await.expect("must not hang")
}

/// Bytes in, bytes out until the other side closes.
pub(crate) async fn raw(addr: SocketAddr, bytes: &[u8]) -> String {
    let exchange = async {
        let mut socket = TcpStream::connect(addr).await.unwrap();
        // The other side may close before it has read everything.
        let _ = socket.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    tokio::time::timeout(Duration::from_secs(10), exchange).await.expect("must not hang")
}

/// One server-sent event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: Option<u64>,
    pub(crate) data: String,
}

impl Event {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{}: {error}", self.data))
    }
}

pub(crate) fn events(text: &str) -> Vec<Event> {
    assert!(text.ends_with("\n\n"), "the last event is whole");
    let read = |block: &str| {
        let mut event = Event { id: None, data: String::new() };
        for line in block.lines() {
            match line.split_once(": ").expect("field: value") {
                ("id", id) => event.id = Some(id.parse().unwrap()),
                ("data", data) => event.data = data.to_owned(),
                ("retry", time) => assert!(time.parse::<u64>().is_ok(), "{time}"),
                ("", _comment) => {}
                (field, _) => panic!("unexpected field {field}"),
            }
        }
        event
    };
    text.trim_end().split("\n\n").map(read).filter(|event| !event.data.is_empty()).collect()
}
