//! Who may use the service, and how much of it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use sd_inference::machine::parse_bytes;

/// Tokens, TLS and limits of `serve`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Safety")]
pub(crate) struct SafetyArgs {
    /// A bearer token that opens everything. Better given by the environment, where `ps` does not show it.
    #[arg(long, env = "SD_WORKER_TOKEN", hide_env_values = true, conflicts_with = "tokens_file")]
    pub(crate) token: Option<Secret>,
    /// A file with a token a line, `name:token` or `name:token:scopes`; scopes are `generate` (without a list) and `admin`.
    /// It is read again when it changes.
    #[arg(long, env = "SD_WORKER_TOKENS_FILE", value_name = "FILE")]
    pub(crate) tokens_file: Option<PathBuf>,
    /// A certificate in PEM, with those that it is signed by: speak TLS. Read again when it changes, as the key is.
    #[arg(long, env = "SD_WORKER_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key in PEM.
    #[arg(long, env = "SD_WORKER_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// An origin whose pages may use the worker, such as `https://example.org`; `*` for all, with tokens only. May be
    /// repeated, or a list with commas.
    #[arg(long, env = "SD_WORKER_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub(crate) cors_origin: Vec<String>,
    /// Without tokens: a name under which the worker is called, beside addresses and localhost. May be repeated, or a list
    /// with commas.
    #[arg(long, env = "SD_WORKER_ALLOWED_HOST", value_name = "NAME", value_delimiter = ',')]
    pub(crate) allowed_host: Vec<String>,
    /// Connections at once.
    #[arg(long, env = "SD_WORKER_MAX_CONNECTIONS", default_value_t = 1024, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_connections: u32,
    /// The largest body of a request: bytes, `32MiB`.
    #[arg(long, env = "SD_WORKER_MAX_BODY", default_value = "32MiB", value_name = "BYTES", value_parser = size)]
    pub(crate) max_body: usize,
    /// The largest file in a form.
    #[arg(long, env = "SD_WORKER_MAX_PART", default_value = "16MiB", value_name = "BYTES", value_parser = size)]
    pub(crate) max_part: usize,
    /// Bodies held at once, all together; what is beyond waits.
    #[arg(long, env = "SD_WORKER_MAX_BODIES", default_value = "256MiB", value_name = "BYTES", value_parser = size)]
    pub(crate) max_bodies: usize,
    /// Seconds in which the head of a request must arrive, and which a connection may be idle.
    #[arg(long, env = "SD_WORKER_HEADER_TIMEOUT", default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) header_timeout: Duration,
    /// Seconds in which the body of a request must arrive.
    #[arg(long, env = "SD_WORKER_BODY_TIMEOUT", default_value = "60", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) body_timeout: Duration,
    /// Seconds after which a client that takes nothing of its answer is cut off.
    #[arg(long, env = "SD_WORKER_WRITE_TIMEOUT", default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) write_timeout: Duration,
    /// Write the prompts of accepted jobs into the log.
    #[arg(long, env = "SD_WORKER_LOG_PROMPTS")]
    pub(crate) log_prompts: bool,
}

/// A text that is never shown: not by `Debug`, not in a message about a flag. Whether it is a token is looked at later,
/// because a parser that refuses a value shows it.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl Secret {
    /// The text itself.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn size(text: &str) -> Result<usize, String> {
    match usize::try_from(parse_bytes(text)?) {
        Ok(bytes) if bytes > 0 => Ok(bytes),
        _ => Err("is no number of bytes that can be held".into()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("is no number of seconds from 0.1 to 86400".into()),
    }
}
