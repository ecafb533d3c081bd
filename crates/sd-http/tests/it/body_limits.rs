//! Bodies that are too large or too slow.

use std::time::{Duration, Instant};

use sd_http::ApiConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Setup, Worker, raw};

const HEAD: &str = "POST /v1/jobs HTTP/1.1\r\nhost: worker\r\ncontent-type: application/json\r\n";

async fn worker(max_body_bytes: usize) -> Worker {
    let api = ApiConfig { max_body_bytes, body_timeout: Duration::from_millis(200), ..ApiConfig::default() };
    Worker::with(Setup { api, ..Setup::default() }).await
}

/// Sends a head and then pieces of a body for as long as the other side takes them, and gives the answer with the
/// number of bytes that were sent.
async fn pour(worker: &Worker, head: &str, piece: &[u8], total: usize) -> (String, usize) {
    let mut socket = TcpStream::connect(worker.addr).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = socket.split();
    let mut sent = 0;
    let pouring = async {
        while sent < total && writing.write_all(piece).await.is_ok() {
            sent += piece.len();
        }
    };
    let mut answer = Vec::new();
    let listening = async {
        let _ = reading.read_to_end(&mut answer).await;
    };
    // A client that listens while it sends.
    tokio::select! {
        () = listening => {}
        () = async { pouring.await; std::future::pending().await } => {}
        () = tokio::time::sleep(Duration::from_secs(10)) => panic!("must not hang"),
    }
    (String::from_utf8(answer).unwrap(), sent)
}

const GIGABYTE: usize = 1 << 30;

#[tokio::test]
async fn a_gigabyte_that_is_announced_is_not_read() {
    let worker = worker(1 << 20).await;
    let head = format!("{HEAD}content-length: {GIGABYTE}\r\n\r\n");
    let (answer, sent) = pour(&worker, &head, &[b' '; 64 << 10], GIGABYTE).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("connection: close") && answer.contains("payload_too_large"), "{answer}");
    assert!(sent < GIGABYTE / 4, "{sent} bytes were taken");
}

#[tokio::test]
async fn a_gigabyte_in_chunks_is_not_read() {
    let worker = worker(1 << 20).await;
    let head = format!("{HEAD}transfer-encoding: chunked\r\n\r\n");
    let mut chunk = b"10000\r\n".to_vec();
    chunk.extend([b' '; 0x10000]);
    chunk.extend(b"\r\n");
    let (answer, sent) = pour(&worker, &head, &chunk, GIGABYTE).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(sent < GIGABYTE / 4, "{sent} bytes were taken");
    assert_eq!(worker.get("/health").await.status, 200);
}

#[tokio::test]
async fn what_announces_too_much_is_refused_before_it_is_sent() {
    let worker = worker(1 << 20).await;
    let answer = raw(worker.addr, format!("{HEAD}content-length: {GIGABYTE}\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_client_that_sends_everything_first_still_reads_why() {
    let worker = worker(1 << 10).await;
    let body = vec![b' '; 8 << 20];
    let mut socket = TcpStream::connect(worker.addr).await.unwrap();
    socket.write_all(format!("{HEAD}content-length: {}\r\n\r\n", body.len()).as_bytes()).await.unwrap();
    socket.write_all(&body).await.expect("the rest of the body must be taken");
    socket.shutdown().await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("the connection must not be reset");
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer:?}");
}

#[tokio::test]
async fn the_limit_itself_is_allowed() {
    let body = r#"{"operation":"image_generation","prompt":"x"}"#;
    let worker = worker(body.len()).await;
    assert_eq!(worker.post_text(body).await.status, 202);
    let longer = worker.post_text(format!("{body} ")).await;
    assert_eq!((longer.status.as_u16(), longer.code().as_str()), (413, "payload_too_large"));
}

#[tokio::test]
async fn a_body_that_does_not_arrive_times_out() {
    let worker = worker(1 << 20).await;
    let begun = Instant::now();
    let answer = raw(worker.addr, format!("{HEAD}content-length: 100\r\n\r\n{{").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(begun.elapsed() >= Duration::from_millis(200));
}
