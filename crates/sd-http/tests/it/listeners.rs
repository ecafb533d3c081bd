//! Those who follow a job: their leaving, and their not reading.

use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use sd_http::{ResponseBody, ServerConfig};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{Setup, Worker, raw};

const PATIENCE: Duration = Duration::from_secs(10);

/// Submits a job that ends with its listeners.
async fn submit(worker: &Worker, prompt: &str) -> String {
    let body = json!({"operation": "image_generation", "prompt": prompt, "cancel_on_disconnect": true});
    let answer = worker.post(&body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    format!("/v1/jobs/{}", answer.json()["job_id"].as_str().unwrap())
}

/// A connection on which the story has begun.
async fn listen(worker: &Worker, job: &str) -> TcpStream {
    let mut socket = TcpStream::connect(worker.addr).await.unwrap();
    let head = format!("GET {job}/stream HTTP/1.1\r\nhost: worker\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains("queued") {
        assert_ne!(socket.read_buf(&mut text).await.unwrap(), 0, "the stream must stay open");
    }
    socket
}

async fn state(worker: &Worker, job: &str) -> String {
    worker.get(job).await.json()["state"].as_str().unwrap().to_owned()
}

async fn becomes(worker: &Worker, job: &str, wanted: &str) {
    let waiting = async {
        while state(worker, job).await != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{job} never becomes {wanted}"));
}

#[tokio::test]
async fn a_job_goes_with_the_last_of_its_listeners_where_it_was_asked_for() {
    let worker = Worker::start().await;
    let running = submit(&worker, "gated").await;
    worker.gate.reached().await;
    let waiting = submit(&worker, "waits").await;
    let (first, second) = (listen(&worker, &running).await, listen(&worker, &running).await);
    let of_waiting = listen(&worker, &waiting).await;
    drop(of_waiting);
    becomes(&worker, &waiting, "cancelled").await;
    drop(first);
    tokio::time::sleep(Duration::from_millis(50)).await;
    worker.gate.let_through(1);
    worker.gate.reached().await;
    assert_eq!(state(&worker, &running).await, "running", "one listens still");
    drop(second);
    tokio::time::sleep(Duration::from_millis(50)).await;
    worker.gate.open();
    becomes(&worker, &running, "cancelled").await;
    assert!(!worker.log.lines().iter().any(|line| line == "gated:finish"), "{:?}", worker.log.lines());
}

#[tokio::test]
async fn by_default_and_before_anyone_listened_a_job_goes_on() {
    let worker = Worker::start().await;
    let running = worker.occupy().await;
    drop(listen(&worker, &running).await);
    let unheard = submit(&worker, "nobody listens").await;
    let heard = submit(&worker, "heard to the end").await;
    let (stream, ()) = tokio::join!(worker.stream(&heard), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        worker.gate.open();
    });
    assert_eq!(stream.last().unwrap().data, "[DONE]");
    for job in [&running, &unheard, &heard] {
        becomes(&worker, job, "completed").await;
    }
}

/// The worker leaves, not the listener.
#[tokio::test]
async fn a_stream_that_ends_with_the_worker_cancels_nothing() {
    let worker = Worker::start().await;
    let running = submit(&worker, "gated").await;
    worker.gate.reached().await;
    let stream = listen(&worker, &running).await;
    worker.router.shutdown();
    drop(stream);
    tokio::time::sleep(Duration::from_millis(50)).await;
    worker.gate.open();
    becomes(&worker, &running, "completed").await;
}

/// The engine and the others never wait for one who does not read; after a while it is cut off and its place is free.
#[tokio::test]
async fn who_stops_reading_holds_nobody_up_and_is_cut_off() {
    let server = ServerConfig {
        max_connections: 1,
        write_timeout: Duration::from_millis(300),
        ..ServerConfig::default()
    };
    let worker = Worker::with(Setup { server, ..Setup::default() }).await;
    let long = json!({"operation": "image_generation", "prompt": "noise", "width": 1024, "height": 512});
    let job = worker.post(&long).await.json()["job_id"].as_str().unwrap().to_owned();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut silent = socket.connect(worker.addr).await.unwrap();
    let head = format!("GET /v1/jobs/{job}/stream HTTP/1.1\r\nhost: worker\r\n\r\n");
    silent.write_all(head.as_bytes()).await.unwrap();

    // Without a socket: there is place for one.
    let request = Request::get(format!("/v1/jobs/{job}/stream")).body(http_body_util::Empty::new()).unwrap();
    let story: ResponseBody = worker.api.handle(request).await.into_body();
    let story =
        tokio::time::timeout(Duration::from_secs(60), story.collect()).await.unwrap().unwrap().to_bytes();
    assert!(is_whole(&story));
    assert!(story.len() > 1 << 20, "the story must not fit into the sockets' buffers: {}", story.len());

    let free = async {
        let probe = b"GET /health HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n";
        while !raw(worker.addr, probe).await.starts_with("HTTP/1.1 200 ") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.expect("the place must become free");
    let mut rest = Vec::new();
    let _reset_or_ended = silent.read_to_end(&mut rest).await;
    assert!(!is_whole(&rest), "it was cut off in the middle");
}

/// Whether a stream came to its end.
fn is_whole(story: &[u8]) -> bool {
    let end = b"data: [DONE]\n\n";
    story.windows(end.len()).any(|part| part == end)
}
