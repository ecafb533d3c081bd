//! What an operator can choose.

use std::time::Duration;

use crate::metrics::Metrics;
use crate::token::ApiToken;

/// How requests are answered.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Who knows it may use the worker; `None`: everybody who can connect.
    pub token: Option<ApiToken>,
    /// Largest request body.
    pub max_body_bytes: usize,
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
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            token: None,
            max_body_bytes: 32 << 20,
            body_timeout: Duration::from_secs(60),
            keep_alive: Duration::from_secs(15),
            metrics: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: Vec::new(),
        }
    }
}

/// How connections are held.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Connections at once; further ones are answered 503 and closed.
    pub max_connections: usize,
    /// How long a request's head may take to arrive, also on a connection that was used before.
    pub header_timeout: Duration,
    /// How long open connections may take to end after the server was told to stop.
    pub grace: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            header_timeout: Duration::from_secs(30),
            grace: Duration::from_secs(10),
        }
    }
}
