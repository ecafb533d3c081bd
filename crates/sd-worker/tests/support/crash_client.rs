//! A worker that is killed, and a client that lives on.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Worker {
    child: Child,
    pub(crate) address: String,
}

/// Starts the real binary with the demonstration model.
pub(crate) fn start(directory: &str, arguments: &[&str]) -> Worker {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sd-worker"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir", directory])
        .args(arguments)
        .env("SD_WORKER_LOG", "error")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line:?}"));
    Worker { address: address.to_owned(), child }
}

impl Worker {
    /// As `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It was killed already, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In lower case.
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

/// Where the worker is now.
#[derive(Default)]
pub(crate) struct Client(Mutex<String>);

impl Client {
    pub(crate) fn moved(&self, address: &str) {
        address.clone_into(&mut self.0.lock().unwrap());
    }

    /// The connection, with the request sent.
    fn connect(&self, method: &str, path: &str, headers: &str, body: &str) -> Option<TcpStream> {
        let address = self.0.lock().unwrap().clone();
        let mut stream = TcpStream::connect(&address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
             content-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}"
        )
        .ok()?;
        Some(stream)
    }

    /// Sends a request. `None`: there was no answer, or not all of it.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Option<Answer> {
        let mut answer = Vec::new();
        self.connect(method, path, headers, body)?.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let mut body = answer.split_off(end + 4);
        if head.contains("transfer-encoding: chunked") {
            body = unchunked(&body)?;
        } else {
            let length =
                head.split("content-length: ").nth(1)?.split("\r\n").next()?.parse::<usize>().ok()?;
            if body.len() < length {
                return None;
            }
        }
        Some(Answer { status, head, body })
    }

    /// Sends a request until it is answered and the worker is ready.
    pub(crate) fn patiently(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let begun = Instant::now();
        loop {
            match self.send(method, path, headers, body) {
                Some(answer) if answer.status != 503 => return answer,
                _ => assert!(begun.elapsed() < PATIENCE, "{method} {path} is not answered"),
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn ready(&self) {
        self.patiently("GET", "/ready", "", "");
    }

    /// Gives every event with its id, and the terminator without one, until the connection ends. The status, if one came.
    pub(crate) fn events(
        &self,
        path: &str,
        after: u64,
        mut told: impl FnMut(Option<u64>, &str),
    ) -> Option<u16> {
        let stream = self.connect("GET", path, &format!("Last-Event-ID: {after}\r\n"), "")?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let mut id = None;
        loop {
            let mut line = String::new();
            // A line that was cut short is none.
            if reader.read_line(&mut line).ok()? == 0 || !line.ends_with('\n') {
                return Some(status);
            }
            let line = line.trim_end();
            if let Some(text) = line.strip_prefix("id: ") {
                id = text.parse().ok();
            } else if let Some(data) = line.strip_prefix("data: ") {
                told(id.take(), data);
            }
        }
    }
}

fn unchunked(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&body[..end]).ok()?, 16).ok()?;
        if length == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(body.get(end + 2..end + 2 + length)?);
        body = body.get(end + 4 + length..)?;
    }
}
