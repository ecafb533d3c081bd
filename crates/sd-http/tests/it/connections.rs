//! Connections are bounded in number and in patience.

use std::time::Duration;

use sd_http::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Setup, Worker, raw};

async fn worker(server: ServerConfig) -> Worker {
    Worker::with(Setup { server, ..Setup::default() }).await
}

#[tokio::test]
async fn one_too_many_is_turned_away_with_a_reason() {
    let worker = worker(ServerConfig { max_connections: 1, ..ServerConfig::default() }).await;
    let mut held = TcpStream::connect(worker.addr).await.unwrap();
    held.write_all(b"GET /health HTTP/1.1\r\nhost: worker\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    held.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let answer = raw(worker.addr, b"").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("too many connections"), "{answer}");
    drop(held);
    let served = async {
        while !raw(worker.addr, b"GET /health HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n")
            .await
            .contains(" 200 ")
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), served).await.expect("the place must be free again");
}

#[tokio::test]
async fn a_head_that_does_not_arrive_ends_the_connection() {
    let worker =
        worker(ServerConfig { header_timeout: Duration::from_millis(50), ..ServerConfig::default() }).await;
    for begun in ["", "GET /health HTTP/1.1\r\nhost: wor"] {
        let mut socket = TcpStream::connect(worker.addr).await.unwrap();
        socket.write_all(begun.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut rest))
            .await
            .expect("closed")
            .unwrap();
    }
}

#[tokio::test]
async fn a_connection_serves_several_requests() {
    let worker = Worker::start().await;
    let request = "GET /health HTTP/1.1\r\nhost: w\r\n\r\n".repeat(2)
        + "GET /health HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n";
    let answer = raw(worker.addr, request.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
}

#[tokio::test]
async fn what_is_no_http_gets_400() {
    let worker = Worker::start().await;
    let answer = raw(worker.addr, b"\x16\x03\x01 hello\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(worker.get("/health").await.status, 200);
}

/// The whole head counts: one long header, many short ones, a long address.
#[tokio::test]
async fn a_head_beyond_its_limit_gets_431() {
    let worker = worker(ServerConfig { max_header_bytes: 16 << 10, ..ServerConfig::default() }).await;
    let with =
        |headers: String| format!("GET /health HTTP/1.1\r\nhost: w\r\nconnection: close\r\n{headers}\r\n");
    let answer = raw(worker.addr, with(format!("x: {}\r\n", "y".repeat(8 << 10))).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let long = with(format!("x: {}\r\n", "y".repeat(17 << 10)));
    let many = with((0..200).map(|k| format!("x{k}: y\r\n")).collect());
    for head in [long, many] {
        let answer = raw(worker.addr, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
    }
    let address = raw(worker.addr, format!("GET /{} HTTP/1.1\r\n", "y".repeat(17 << 10)).as_bytes()).await;
    assert!(address.starts_with("HTTP/1.1 4"), "{address:?}");
    assert_eq!(worker.get("/health").await.status, 200);
}

#[tokio::test]
async fn a_connection_that_was_used_is_not_idle_for_ever() {
    let worker =
        worker(ServerConfig { header_timeout: Duration::from_millis(100), ..ServerConfig::default() }).await;
    let answer = raw(worker.addr, b"GET /health HTTP/1.1\r\nhost: w\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "and then it is closed: {answer}");
}

/// A client that sends its head a byte at a time has no longer than one that sends nothing.
#[tokio::test]
async fn a_head_that_drips_ends_the_connection() {
    let worker =
        worker(ServerConfig { header_timeout: Duration::from_millis(200), ..ServerConfig::default() }).await;
    let mut socket = TcpStream::connect(worker.addr).await.unwrap();
    let dripping = async {
        while socket.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), dripping).await.expect("cut off");
}
