//! Log lines, on the standard error stream.

use std::fmt;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;

/// Changes which lines there are.
pub(crate) struct LogHandle {
    set: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
    default: &'static str,
}

/// Checks a filter such as `debug` or `sd_engine=trace`.
pub(crate) fn filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Starts logging: what `filter` asks for, else what a service tells or, in other commands, warnings.
pub(crate) fn start(format: LogFormat, filter: Option<&str>, service: bool) -> LogHandle {
    let default = if service { "info" } else { "warn" };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter.unwrap_or(default)))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let set: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync> = match format {
        LogFormat::Text => {
            let subscriber = subscriber.with_filter_reloading();
            let handle = subscriber.reload_handle();
            subscriber.init();
            Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()))
        }
        LogFormat::Json => {
            let subscriber = subscriber.json().with_filter_reloading();
            let handle = subscriber.reload_handle();
            subscriber.init();
            Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()))
        }
    };
    LogHandle { set, default }
}

impl LogHandle {
    /// Takes another filter; `None` means the one that is built in.
    pub(crate) fn set(&self, filter: Option<&str>) -> Result<(), String> {
        (self.set)(EnvFilter::new(filter.unwrap_or(self.default)))
    }
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHandle").field("default", &self.default).finish_non_exhaustive()
    }
}
