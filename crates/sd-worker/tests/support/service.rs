//! A worker of its own for one test: the real binary, on a free port.

// Not every test file uses all of it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::NamedTempFile;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Service {
    pub(crate) child: Child,
    pub(crate) address: String,
    log: NamedTempFile,
    /// Kept open: the worker writes to it.
    _stdout: BufReader<ChildStdout>,
}

impl Service {
    /// A worker that is ready.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    pub(crate) fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut service = Self::start_unready(arguments, variables);
        service.until("ready", |service| service.get("/ready").0 == 200);
        service
    }

    /// A worker that listens; its model may still be loading.
    pub(crate) fn start_unready(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let log = NamedTempFile::new().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_sd-worker"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .envs(variables.iter().copied())
            // Whatever the machine is configured for, the test is not.
            .env("XDG_CONFIG_HOME", std::env::temp_dir().join("no-configuration"))
            .stdout(Stdio::piped())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let said = || std::fs::read_to_string(log.path()).unwrap();
        let address = line
            .trim()
            .strip_prefix("listening on http://")
            .or_else(|| line.trim().strip_prefix("listening on https://"))
            .unwrap_or_else(|| panic!("{}", said()))
            .to_owned();
        Self { child, address, log, _stdout: stdout }
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    /// Waits for something.
    pub(crate) fn until(&mut self, what: &str, mut there: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !there(self) {
            assert!(start.elapsed() < PATIENCE, "never: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends one request and reads the answer to its end.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             {headers}content-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned());
        (status, body)
    }

    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.send("GET", path, "", "")
    }

    pub(crate) fn submit(&self, operation: &Value) -> (u16, Value) {
        let (status, body) = self.send("POST", "/v1/jobs", "", &operation.to_string());
        (status, serde_json::from_str(&body).unwrap())
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.until("ended", |service| service.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It has ended already in tests that stop it themselves.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
