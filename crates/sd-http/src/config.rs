//! What an operator can choose.

use std::time::Duration;

use crate::cors::CorsOrigins;
use crate::faces::Faces;
use crate::gate::AllowedHosts;
use crate::metrics::Metrics;
use crate::tls::Tls;
use crate::token::Tokens;

/// How requests are answered.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Who knows one may use the worker, as far as its scopes go; `None`: everybody who can connect.
    pub tokens: Option<Tokens>,
    /// Which pages of other origins may use the worker.
    pub cors: CorsOrigins,
    /// Without tokens: under which names the worker answers.
    pub hosts: AllowedHosts,
    /// Largest request body.
    pub max_body_bytes: usize,
    /// Bytes of all bodies that are held at once; more wait.
    pub max_bodies_bytes: usize,
    /// Largest part of a form.
    pub max_part_bytes: usize,
    /// How long a request body may take to arrive.
    pub body_timeout: Duration,
    /// After so much silence a comment goes into an event stream.
    pub keep_alive: Duration,
    /// Where the process keeps its metrics; `None`: it keeps none.
    pub metrics: Option<Metrics>,
    /// Told by `/v1/info`: the version of the worker.
    pub version: String,
    /// Told by `/v1/info`: what the worker was built with.
    pub features: Vec<String>,
    /// Whether clients reach the worker over TLS, for addresses in answers.
    pub https: bool,
    /// Which interfaces of other programs are answered.
    pub faces: Faces,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            tokens: None,
            cors: CorsOrigins::default(),
            hosts: AllowedHosts::any(),
            max_body_bytes: 32 << 20,
            max_bodies_bytes: 256 << 20,
            max_part_bytes: 16 << 20,
            body_timeout: Duration::from_secs(60),
            keep_alive: Duration::from_secs(15),
            metrics: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: Vec::new(),
            https: false,
            faces: Faces::default(),
        }
    }
}

/// How connections are held.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Connections at once; further ones are answered 503 and closed.
    pub max_connections: usize,
    /// Largest head of a request: its first line and its headers.
    pub max_header_bytes: usize,
    /// How long a request's head may take to arrive, the handshake of TLS too, and how long a connection may be idle
    /// between two requests.
    pub header_timeout: Duration,
    /// How long a client may take nothing of an answer before the connection is cut.
    pub write_timeout: Duration,
    /// The certificate to show; `None`: no TLS.
    pub tls: Option<Tls>,
    /// How long open connections may take to end after the server was told to stop.
    pub grace: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_header_bytes: 32 << 10,
            header_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            tls: None,
            grace: Duration::from_secs(10),
        }
    }
}
