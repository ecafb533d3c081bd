//! Talking to a worker over HTTP.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use operations_contract::ErrorBody;
use serde::de::DeserializeOwned;
use ureq::http::{Request, Response};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, AsSendBody, Body};

use super::args::RemoteArgs;
use crate::exit::{Failure, Kind};

/// Three of the comments that keep an event stream alive were missed.
const SILENCE: Duration = Duration::from_secs(45);
const CONNECT: Duration = Duration::from_secs(10);
/// Of one picture, or of an answer with several.
const LONGEST_ANSWER: u64 = 1 << 30;
/// Of an answer that is not JSON, to be shown. A proxy's whole page is not.
const LONGEST_TEXT: usize = 200;

/// One worker.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    base: String,
    authorization: Option<String>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Unanswered {
    pub(crate) failure: Failure,
    /// Whether the same request may succeed later: the connection broke, or the worker cannot just now.
    pub(crate) passes: bool,
}

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        unanswered.failure
    }
}

impl Client {
    pub(crate) fn new(args: &RemoteArgs) -> Result<Self, Failure> {
        let config = Agent::config_builder()
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .max_redirects(0)
            .http_status_as_error(false)
            .tls_config(TlsConfig::builder().root_certs(roots(args)?).build())
            .user_agent(concat!("sd-worker/", env!("CARGO_PKG_VERSION")))
            .build();
        let authorization = token(args)?.map(|token| format!("Bearer {token}"));
        Ok(Self { agent: config.new_agent(), base: args.url.clone(), authorization })
    }

    /// The JSON at an address.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Unanswered> {
        self.json(self.send("GET", path, &[], ())?)
    }

    /// Sends JSON.
    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T, Unanswered> {
        self.json(self.send("POST", path, &[("content-type", "application/json")], body)?)
    }

    /// Asks for an end.
    pub(crate) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Unanswered> {
        self.json(self.send("DELETE", path, &[], ())?)
    }

    /// The bytes at an address.
    pub(crate) fn bytes(&self, path: &str) -> Result<Vec<u8>, Unanswered> {
        let mut response = self.send("GET", path, &[], ())?;
        let bytes = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec();
        bytes.map_err(|error| self.broken(&error))
    }

    /// An event stream from the event after `after` on.
    pub(crate) fn events(&self, path: &str, after: u64) -> Result<impl BufRead + use<>, Unanswered> {
        let after = after.to_string();
        let headers = [("accept", "text/event-stream"), ("last-event-id", after.as_str())];
        let response = self.send("GET", path, &headers, ())?;
        Ok(BufReader::new(response.into_body().into_with_config().limit(u64::MAX).reader()))
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsSendBody,
    ) -> Result<Response<Body>, Unanswered> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.body(body).map_err(|error| Unanswered {
            failure: Failure::refused(format!("{}{path}: {error}", self.base)),
            passes: false,
        })?;
        let response = self.agent.run(request).map_err(|error| self.broken(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response)) }
    }

    fn json<T: DeserializeOwned>(&self, mut response: Response<Body>) -> Result<T, Unanswered> {
        let bytes = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec();
        let bytes = bytes.map_err(|error| self.broken(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| Unanswered {
            failure: Failure::failed(format!("{}: the answer is not that of a worker: {error}", self.base)),
            passes: false,
        })
    }

    fn broken(&self, error: &ureq::Error) -> Unanswered {
        Unanswered { failure: Failure::failed(format!("{}: {error}", self.base)), passes: true }
    }

    /// What the worker says against a request, in its own words.
    fn refusal(&self, mut response: Response<Body>) -> Unanswered {
        let status = response.status();
        let after =
            response.headers().get("retry-after").and_then(|value| value.to_str().ok().map(str::to_owned));
        let bytes = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec().unwrap_or_default();
        let mut message = match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(body) => format!("{}: {}", body.error.code, body.error.message),
            // Such as a worker that has a certificate, asked without TLS.
            Err(_) => match std::str::from_utf8(&bytes).map(str::trim) {
                Ok(text) if !text.is_empty() && text.len() <= LONGEST_TEXT => {
                    format!("{} answered {status}: {text}", self.base)
                }
                _ => format!("{} answered {status}", self.base),
            },
        };
        if let Some(seconds) = after {
            message.push_str(&format!(" (try again in {seconds} s)"));
        }
        let passes = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
        let kind = if passes { Kind::Failed } else { Kind::Refused };
        Unanswered { failure: Failure { kind, message }, passes }
    }
}

/// Whom the worker's certificate must come from.
fn roots(args: &RemoteArgs) -> Result<RootCerts, Failure> {
    let Some(path) = &args.ca_cert else { return Ok(RootCerts::WebPki) };
    let refused = |reason: String| Failure::refused(format!("ca-cert {}: {reason}", path.display()));
    let text = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&text) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| refused(error.to_string()))? {
            certificates.push(certificate);
        }
    }
    match certificates.is_empty() {
        true => Err(refused("holds no certificate in PEM".into())),
        false => Ok(RootCerts::new_with_certs(&certificates)),
    }
}

/// From the file that was named, else from the environment: arguments can be read by everybody on the machine.
fn token(args: &RemoteArgs) -> Result<Option<String>, Failure> {
    let Some(path) = &args.token_file else {
        return Ok(std::env::var("SD_WORKER_TOKEN").ok().filter(|token| !token.is_empty()));
    };
    let refused = |reason: String| Failure::refused(format!("token-file {}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    match text.lines().next().map(str::trim) {
        // Nothing else goes into a header.
        Some(token) if !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(refused("its first line has characters that no token has".into()))
        }
        Some(token) if !token.is_empty() => Ok(Some(token.to_owned())),
        _ => Err(refused("its first line is empty".into())),
    }
}
