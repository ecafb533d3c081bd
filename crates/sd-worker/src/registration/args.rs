//! What a supervisor or a router above passes.

use clap::Args;

/// Who the worker is, and whom it tells that it is there.
#[derive(Debug, Args)]
pub(crate) struct SupervisorArgs {
    /// The port to listen on, instead of that of --listen.
    #[arg(long, env = "SD_WORKER_PORT")]
    pub(crate) port: Option<u16>,
    /// The worker's name towards a router above and in traces [default: drawn at each start].
    #[arg(long, env = "SD_WORKER_WORKER_ID", value_name = "NAME", value_parser = worker_id)]
    pub(crate) worker_id: Option<String>,
    /// The router above that is told by heartbeats where the worker is and what it is up to: `http://...` or `https://...`.
    #[arg(long, visible_alias = "callback-url", env = "SD_WORKER_QUEEN_URL", value_name = "URL", value_parser = heartbeat_url)]
    pub(crate) queen_url: Option<String>,
    /// The host that heartbeats name [default: that of --listen, or where that is all addresses, the one towards the router].
    #[arg(long, env = "SD_WORKER_ADVERTISE_HOST", value_name = "HOST")]
    pub(crate) advertise_host: Option<String>,
    /// Seconds between two heartbeats while nothing changes. A router holds a worker dead after 90.
    #[arg(long, env = "SD_WORKER_HEARTBEAT_INTERVAL", default_value_t = 30, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=80))]
    pub(crate) heartbeat_interval: u64,
}

impl SupervisorArgs {
    /// The worker's name, which is drawn now if nobody gave it one.
    pub(crate) fn settled_id(&mut self) -> &str {
        self.worker_id.get_or_insert_with(|| format!("sd-worker-{}", uuid::Uuid::new_v4()))
    }
}

/// Where heartbeats go.
const PATH: &str = "/v1/worker-heartbeat";

fn worker_id(text: &str) -> Result<String, String> {
    const LONGEST: usize = 512;
    match text.chars().count() {
        1..=LONGEST if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        _ => Err(format!("must be 1 to {LONGEST} characters without control characters")),
    }
}

/// The address for heartbeats, whether the router's own address is given or already that.
fn heartbeat_url(text: &str) -> Result<String, String> {
    let uri: ureq::http::Uri = text.parse().map_err(|error| format!("is no address: {error}"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err("must begin with http:// or https:// and name a host".into());
    }
    if uri.query().is_some() {
        return Err("must have no query".into());
    }
    let base = text.trim_end_matches('/');
    Ok(if base.ends_with(PATH) { base.to_owned() } else { format!("{base}{PATH}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_go_to_their_route() {
        for base in ["http://queen:7833", "http://queen:7833/", "http://queen:7833/v1/worker-heartbeat"] {
            assert_eq!(heartbeat_url(base).unwrap(), "http://queen:7833/v1/worker-heartbeat");
        }
        assert_eq!(heartbeat_url("https://a/b").unwrap(), "https://a/b/v1/worker-heartbeat");
        for wrong in ["queen:7833", "ftp://queen", "/v1", "http://", "http://a?b=c", ""] {
            assert!(heartbeat_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_short_and_printable() {
        assert!(worker_id("gpu-3").is_ok());
        assert!(worker_id("").is_err() && worker_id("a\nb").is_err() && worker_id(&"x".repeat(513)).is_err());
    }
}
