//! Log lines, on the standard error stream.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;

/// Starts logging: what SD_WORKER_LOG asks for, else what a service tells or, in other commands, warnings.
pub(crate) fn start(format: LogFormat, service: bool) {
    let default = if service { "info" } else { "warn" };
    let filter = EnvFilter::try_from_env("SD_WORKER_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
}
