//! A little HTTP server whose answers a test decides one by one: it fails, delays and cuts connections on request.

// Not every test file uses all of it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) at: Instant,
    /// Method and path.
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// What happens to a request.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// A status with a body.
    Status(u16, &'static str),
    /// These bytes as they are, then the connection is closed.
    Raw(String),
    /// The connection is closed without an answer.
    Cut,
    /// No answer for so long, then the connection is closed.
    Silence(Duration),
}

pub(crate) struct LittleServer {
    pub(crate) url: String,
    requests: Receiver<Received>,
}

impl LittleServer {
    /// Serves until the process ends. `decide` gets the number of each request, from 0, and the request.
    pub(crate) fn start(decide: impl Fn(usize, &Received) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let received = read(stream.as_ref().unwrap());
                let answer = decide(number, &received);
                if sender.send(received).is_err() {
                    return;
                }
                let stream = stream.unwrap();
                std::thread::spawn(move || reply(stream, answer));
            }
        });
        Self { url, requests }
    }

    /// The next request. Each comes over a connection of its own.
    pub(crate) fn next(&self, patience: Duration) -> Received {
        self.requests.recv_timeout(patience).expect("a request")
    }

    /// Whether none came within so long.
    pub(crate) fn is_quiet(&self, time: Duration) -> bool {
        self.requests.recv_timeout(time).is_err()
    }
}

fn read(stream: &TcpStream) -> Received {
    let at = Instant::now();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let line = line.trim().trim_end_matches(" HTTP/1.1").to_owned();
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        match header.trim().split_once(':') {
            Some((name, value)) => headers.push((name.to_lowercase(), value.trim().to_owned())),
            None => break,
        }
    }
    let mut received = Received { at, line, headers, body: String::new() };
    let length = received.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    received.body = String::from_utf8(body).unwrap();
    received
}

/// The other side may have gone: then there is nobody to tell.
fn reply(mut stream: TcpStream, answer: Answer) {
    let text = match answer {
        Answer::Status(status, body) => format!(
            "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{body}",
            body.len()
        ),
        Answer::Raw(text) => text,
        Answer::Cut => String::new(),
        Answer::Silence(time) => {
            std::thread::sleep(time);
            String::new()
        }
    };
    let _ = stream.write_all(text.as_bytes());
}
