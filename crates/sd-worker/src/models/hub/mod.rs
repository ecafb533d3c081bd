//! The Hugging Face hub, as far as fetching models needs it, following the variables of the Python tools.
//!
//! The crate `hf-hub` 1.0 starts a cut download over and does not check what arrived; both matter with gigabytes.

mod download;
mod select;

pub(crate) use download::{Cache, Remote};
pub(crate) use select::files as select_files;

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{HeaderMap, Response, StatusCode, Uri};
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, RequestBuilder};

use crate::exit::Failure;

const ENDPOINT: &str = "https://huggingface.co";
/// One answer at most takes so long; a download goes on with a new request where the last one ended.
const ONE_ANSWER: Duration = Duration::from_secs(300);
const CONNECT: Duration = Duration::from_secs(30);
/// How often a request is made again without a single byte arriving.
const ATTEMPTS: u32 = 5;
/// The pause before the second attempt; it doubles each time.
const PAUSE: Duration = Duration::from_millis(200);
/// Moves within the hub that are followed, such as to the new name of a repository.
const MAX_MOVES: usize = 5;

/// A connection to the hub.
pub(crate) struct Hub {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// The part of the hub's answer about a repository that is needed.
#[derive(Debug, Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
}

/// A repository at one commit.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) repository: String,
    pub(crate) commit: String,
    pub(crate) files: Vec<String>,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// Whether the Python tools would take this value for yes.
fn is_yes(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str())
}

impl Hub {
    /// By `HF_ENDPOINT`, `HF_TOKEN` (else the file that `hf auth login` writes) and `HF_HUB_OFFLINE`.
    pub(crate) fn from_environment() -> Result<Self, Failure> {
        for name in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
            if variable(name).is_some_and(|value| is_yes(&value)) {
                return Err(Failure::refused(format!("{name} is set: nothing is fetched")));
            }
        }
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        if !is_address(&endpoint) {
            return Err(Failure::refused(format!(
                "HF_ENDPOINT is `{endpoint}`, but must be an address that begins with http:// or https://, such as {ENDPOINT}"
            )));
        }
        let config = Agent::config_builder()
            .user_agent(concat!("sd-worker/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ONE_ANSWER))
            .timeout_recv_body(Some(ONE_ANSWER))
            .build();
        Ok(Self { agent: config.into(), endpoint: endpoint.trim_end_matches('/').to_owned(), token: token() })
    }

    /// With what every request to the hub carries.
    fn request(&self, request: RequestBuilder<WithoutBody>) -> RequestBuilder<WithoutBody> {
        // What is stored compressed arrives so: sizes must be those of the files.
        let request = request.header("accept-encoding", "identity");
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    /// The hub's answer to a small request, asked for again where the network or the hub is at fault.
    fn ask(
        &self,
        url: &str,
        request: impl Fn(&Agent) -> RequestBuilder<WithoutBody>,
    ) -> Result<Response<Body>, Failure> {
        let mut failed = 0;
        loop {
            let problem = match self.request(request(&self.agent)).call() {
                Ok(answer) if answer.status().is_server_error() || answer.status().as_u16() == 429 => {
                    format!("the hub answers {}", answer.status().as_u16())
                }
                Ok(answer) => return Ok(answer),
                Err(error) => error.to_string(),
            };
            failed += 1;
            if failed == ATTEMPTS {
                return Err(Failure::failed(format!("{url}: {problem}")));
            }
            pause(failed);
        }
    }

    /// What the repository holds at `revision`.
    pub(crate) fn listing(&self, repository: &str, revision: &str) -> Result<Listing, Failure> {
        let url = format!("{}/api/models/{repository}/revision/{}", self.endpoint, escaped(revision));
        let mut response = self.ask(&url, |agent| agent.get(&url))?;
        self.check(response.status(), repository, revision)?;
        let text = response
            .body_mut()
            .with_config()
            .limit(64 << 20)
            .read_to_string()
            .map_err(|error| Failure::failed(format!("{url}: {error}")))?;
        let answer: Answer = serde_json::from_str(&text)
            .map_err(|error| Failure::failed(format!("{url}: not an answer of a hub: {error}")))?;
        if !is_plain(&answer.sha) {
            return Err(Failure::failed(format!("{url}: `{}` is no commit", answer.sha)));
        }
        let files = answer.siblings.into_iter().map(|sibling| sibling.rfilename);
        Ok(Listing {
            repository: repository.to_owned(),
            commit: answer.sha,
            // Names become paths in the cache.
            files: files.filter(|name| name.split('/').all(is_plain)).collect(),
        })
    }

    /// Size and checksum of a file.
    pub(crate) fn head(&self, listing: &Listing, file: &str) -> Result<Remote, Failure> {
        let Listing { repository, commit, .. } = listing;
        let mut url = format!("{}/{repository}/resolve/{commit}/{}", self.endpoint, escaped(file));
        for _ in 0..MAX_MOVES {
            // Large files are elsewhere, but the hub itself knows their checksums.
            let response = self.ask(&url, |agent| {
                agent.head(&url).config().max_redirects(0).max_redirects_will_error(false).build()
            })?;
            let headers = response.headers();
            let moved = header(headers, "location").filter(|place| place.starts_with('/'));
            if let (true, Some(place)) = (response.status().is_redirection(), moved) {
                url = format!("{}{place}", self.endpoint);
                continue;
            }
            if !response.status().is_redirection() {
                self.check(response.status(), repository, file)?;
            }
            let etag = header(headers, "x-linked-etag").or_else(|| header(headers, "etag"));
            let size = header(headers, "x-linked-size").or_else(|| header(headers, "content-length"));
            let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
            let (Some(etag), Some(size)) =
                (etag.filter(|etag| is_plain(etag)), size.and_then(|size| size.parse().ok()))
            else {
                return Err(Failure::failed(format!("{url}: the hub tells neither size nor checksum")));
            };
            return Ok(Remote { file: file.to_owned(), url, etag, size });
        }
        Err(Failure::failed(format!("{url}: moved too often")))
    }

    fn check(&self, status: StatusCode, repository: &str, what: &str) -> Result<(), Failure> {
        let page = format!("{}/{repository}", self.endpoint);
        match status.as_u16() {
            200..300 => Ok(()),
            401 | 403 => Err(Failure::refused(format!(
                "{page}: access denied; if it exists, it may need a token (HF_TOKEN) of an account that has accepted its \
                 licence there"
            ))),
            404 => Err(Failure::refused(format!("{page} does not exist, or has no {what}"))),
            other => Err(Failure::failed(format!("{page}: the hub answers {other}"))),
        }
    }
}

/// Whether requests can go there. What cannot is not worth a second attempt.
fn is_address(endpoint: &str) -> bool {
    endpoint.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    })
}

/// Waits after the attempt number `failed`.
fn pause(failed: u32) {
    std::thread::sleep(PAUSE * 2u32.pow(failed.saturating_sub(1)));
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Whether a name can be one component of a path and nothing else.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', ':', '\0'])
}

/// Everything but what may stand in a path, and slashes, as `%20`.
fn escaped(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// The token of the environment, else that of the file which `hf auth login` writes.
fn token() -> Option<String> {
    if variable("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(|value| is_yes(&value)) {
        return None;
    }
    variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")).or_else(|| {
        let home = variable("HF_HOME").map(PathBuf::from).or_else(|| {
            let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
            Some(cache.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")))?.join("huggingface"))
        });
        let path = variable("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home?.join("token")))?;
        let text = std::fs::read_to_string(path).ok()?;
        Some(text.trim().to_owned()).filter(|token| !token.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_of_the_web() {
        for endpoint in [ENDPOINT, "http://127.0.0.1:8080", "https://hub.example/mirror/", "http://[::1]:80"]
        {
            assert!(is_address(endpoint), "{endpoint}");
        }
        for endpoint in
            ["garbage", "hub.example/x", "http://", "http:/x", "ftp://hub.example", "https://a b", "/x"]
        {
            assert!(!is_address(endpoint), "{endpoint}");
        }
    }

    #[test]
    fn names_from_the_hub_cannot_leave_the_cache() {
        for name in ["", ".", "..", ".git", "a/b", "a\\b", "C:"] {
            assert!(!is_plain(name), "{name}");
        }
        assert!(is_plain("model-00001-of-00002.fp16.safetensors"));
        assert_eq!(escaped("a b/ü.txt?x#y"), "a%20b/%C3%BC.txt%3Fx%23y");
    }
}
