//! The real binary as a service on a free port, its log in a file, and a plain client for it.

#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::NamedTempFile;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Service {
    pub(crate) child: Child,
    /// `http` or `https`.
    pub(crate) scheme: String,
    pub(crate) address: String,
    log: NamedTempFile,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Service {
    /// Starts a worker and waits until it listens; its model may still be loading.
    pub(crate) fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let log = NamedTempFile::new().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_sd-worker"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said = std::fs::read_to_string(log.path()).unwrap();
        let (scheme, address) =
            line.trim().strip_prefix("listening on ").and_then(|url| url.split_once("://")).expect(&said);
        Self { scheme: scheme.into(), address: address.into(), child, log }
    }

    /// Waits until a model can serve.
    pub(crate) fn ready(self) -> Self {
        self.until("ready", || self.send("GET", "/ready", "", b"").status == 200);
        self
    }

    pub(crate) fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < PATIENCE, "never {what}; the log says:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    /// Sends one request and reads the answer to its end. `headers` are whole lines.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
            self.address,
            body.len()
        )
        .unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body: answer[end + 4..].to_vec(),
        }
    }

    /// Submits an operation that must be accepted, and gives the job's address.
    pub(crate) fn submit(&self, headers: &str, operation: &Value) -> String {
        let headers = format!("content-type: application/json\r\n{headers}");
        let answer = self.send("POST", "/v1/jobs", &headers, operation.to_string().as_bytes());
        assert_eq!(answer.status, 202, "{}", answer.text());
        format!("/v1/jobs/{}", answer.json()["job_id"].as_str().unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It has ended already in tests that stop it themselves.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
