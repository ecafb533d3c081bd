//! One heartbeat over HTTP.

use std::net::{ToSocketAddrs, UdpSocket};
use std::time::Duration;

use operations_contract::{Heartbeat, HeartbeatAnswer};
use ureq::Agent;
use ureq::http::Uri;

use super::Identity;

/// A router that takes longer is not there.
const PATIENCE: Duration = Duration::from_secs(10);
/// No router says more than this.
const LONGEST_ANSWER: u64 = 64 << 10;

/// Sends heartbeats to one address.
#[derive(Debug, Clone)]
pub(crate) struct Poster {
    agent: Agent,
    url: String,
    host: Option<String>,
}

impl Poster {
    pub(crate) fn new(identity: &Identity) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("sd-worker/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.new_agent(), url: identity.url.clone(), host: identity.host.clone() }
    }

    /// Sends it from a thread that may block, with the worker's host filled in.
    pub(crate) async fn post(&self, heartbeat: Heartbeat) -> Result<HeartbeatAnswer, String> {
        let poster = self.clone();
        let posted = tokio::task::spawn_blocking(move || poster.post_blocking(heartbeat));
        posted.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    fn post_blocking(&self, mut heartbeat: Heartbeat) -> Result<HeartbeatAnswer, String> {
        heartbeat.worker.host = match &self.host {
            Some(host) => host.clone(),
            None => self.own_address().map_err(|error| format!("the way to it is not known: {error}"))?,
        };
        let body = serde_json::to_vec(&heartbeat).map_err(|error| error.to_string())?;
        let mut response = self
            .agent
            .post(&self.url)
            .content_type("application/json")
            .send(&body)
            .map_err(|error| error.to_string())?;
        let status = response.status();
        let answer = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec();
        if !status.is_success() {
            return Err(format!("it answered {status}"));
        }
        let answer = answer.map_err(|error| error.to_string())?;
        serde_json::from_slice(&answer).map_err(|error| format!("its answer is not understood: {error}"))
    }

    /// The address that this machine has towards the router. No packet is sent for it.
    fn own_address(&self) -> std::io::Result<String> {
        let no_host = || std::io::Error::other("its address names no host");
        let uri: Uri = self.url.parse().map_err(|_| no_host())?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let host = uri.host().ok_or_else(no_host)?.trim_matches(['[', ']']);
        let router = (host, port).to_socket_addrs()?.next().ok_or_else(no_host)?;
        let socket = UdpSocket::bind(if router.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.connect(router)?;
        Ok(socket.local_addr()?.ip().to_string())
    }
}
