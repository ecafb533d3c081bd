//! A small server that speaks the hub's endpoints, and breaks its promises where it is told to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// What the repository can be asked for; all are that commit.
const REVISIONS: [&str; 3] = ["main", "dev", COMMIT];

/// How the server misbehaves.
#[derive(Debug, Default, Clone)]
pub struct Faults {
    /// Every answer with a large file ends after so many bytes of it.
    pub cut_after: Option<usize>,
    /// Answers with large files give nothing from this byte on.
    pub stuck_at: Option<usize>,
    /// Ranges are not understood.
    pub no_ranges: bool,
    /// Added to the size that is promised for large files.
    pub size_lie: i64,
    /// Large files arrive with their first byte changed.
    pub corrupt: bool,
    /// Only this token is let in.
    pub token: Option<&'static str>,
    /// So many requests get no answer or an excuse, in turn.
    pub unwell: usize,
    /// The commit that the listing tells.
    pub commit: Option<&'static str>,
}

/// The server, until the test's process ends.
pub struct Server {
    pub url: String,
    state: Arc<State>,
}

struct State {
    url: String,
    files: BTreeMap<String, Vec<u8>>,
    faults: Mutex<Faults>,
    log: Mutex<Vec<String>>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_large(file: &str) -> bool {
    file.ends_with(".safetensors")
}

/// The checksum that the hub tells: sha256 of large files, git's of small ones.
pub fn etag(file: &str, content: &[u8]) -> String {
    if is_large(file) {
        return hex(&Sha256::digest(content));
    }
    let mut sha1 = Sha1::new();
    sha1.update(format!("blob {}\0", content.len()));
    sha1.update(content);
    hex(&sha1.finalize())
}

impl Server {
    /// Serves the repository `tiny/model` with these files.
    pub fn start(files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state =
            Arc::new(State { url: url.clone(), files, faults: Mutex::default(), log: Mutex::default() });
        let served = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&served);
                // A client that goes away in the middle is none of the server's business.
                std::thread::spawn(move || stream.map(|stream| state.answer(stream)));
            }
        });
        Self { url, state }
    }

    pub fn misbehave(&self, faults: Faults) {
        *self.state.faults.lock().unwrap() = faults;
    }

    /// What was asked for since the last time: method, path and range.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.state.log.lock().unwrap())
    }
}

impl State {
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            match line.trim().split_once(':') {
                Some((name, value)) => headers.insert(name.to_lowercase(), value.trim().to_owned()),
                None => break,
            };
        }
        let range = headers.get("range").cloned().unwrap_or_default();
        self.log.lock().unwrap().push(format!("{method} {path} {range}").trim().to_owned());
        let faults = {
            let mut faults = self.faults.lock().unwrap();
            let now = faults.clone();
            faults.unwell = faults.unwell.saturating_sub(1);
            now
        };
        match faults.unwell {
            0 => {}
            odd if odd % 2 == 1 => return Ok(()),
            _ => {
                return stream
                    .write_all(b"HTTP/1.1 503 Unwell\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
        }
        let authorised = faults.token.is_none_or(|token| {
            headers.get("authorization").is_some_and(|value| *value == format!("Bearer {token}"))
        });
        let commit = faults.commit.unwrap_or(COMMIT);
        let resolve = format!("/tiny/model/resolve/{commit}/");
        if let Some(digest) = path.strip_prefix("/cdn/") {
            // Storage elsewhere must never see the token.
            if headers.contains_key("authorization") {
                return stream
                    .write_all(b"HTTP/1.1 400 no\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
            let found = self.files.iter().find(|(name, content)| etag(name, content) == digest);
            return match found {
                Some((_, content)) => send(&mut stream, content, &range, &faults),
                None => Ok(()),
            };
        }
        let reply = if !authorised {
            "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()
        } else if REVISIONS.iter().any(|name| path == format!("/api/models/tiny/model/revision/{name}")) {
            let mut siblings: Vec<_> = self.files.keys().map(|name| json!({"rfilename": name})).collect();
            siblings.push(json!({"rfilename": "../../evil"}));
            let body = json!({"id": "tiny/model", "sha": commit, "siblings": siblings}).to_string();
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
        } else if let Some((name, content)) =
            path.strip_prefix(&resolve).and_then(|name| self.files.get_key_value(name))
        {
            let etag = etag(name, content);
            let common = format!("x-repo-commit: {commit}\r\nconnection: close\r\n");
            match (is_large(name), method.as_str()) {
                (true, _) => format!(
                    "HTTP/1.1 302 Found\r\nlocation: {}/cdn/{etag}\r\nx-linked-etag: \"{etag}\"\r\n\
                     x-linked-size: {}\r\ncontent-length: 0\r\n{common}\r\n",
                    self.url,
                    content.len() as i64 + faults.size_lie
                ),
                (false, "HEAD") => format!(
                    "HTTP/1.1 200 OK\r\netag: W/\"{etag}\"\r\ncontent-length: {}\r\n{common}\r\n",
                    content.len()
                ),
                (false, _) => {
                    let fine = Faults::default();
                    return send(&mut stream, content, &range, &fine);
                }
            }
        } else {
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()
        };
        stream.write_all(reply.as_bytes())
    }
}

fn send(stream: &mut TcpStream, content: &[u8], range: &str, faults: &Faults) -> std::io::Result<()> {
    let mut content = content.to_vec();
    if faults.corrupt {
        content[0] ^= 1;
    }
    let start = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')?.parse::<usize>().ok());
    let (status, start) = match start.filter(|_| !faults.no_ranges) {
        Some(start) => {
            let whole = content.len();
            (format!("206 Partial Content\r\ncontent-range: bytes {start}-{}/{whole}", whole - 1), start)
        }
        None => ("200 OK".to_owned(), 0),
    };
    let rest = &content[start..];
    let mut count = faults.cut_after.unwrap_or(rest.len()).min(rest.len());
    if let Some(stuck_at) = faults.stuck_at {
        count = count.min(stuck_at.saturating_sub(start));
    }
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", rest.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(&rest[..count])
}
