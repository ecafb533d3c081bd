//! Log lines, on the standard error stream.

use std::fmt;
use std::io::IsTerminal;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::args::LogFormat;
use crate::traces::SpanLayer;

/// What is below the layer of the log.
type Below = Layered<Option<SpanLayer>, Registry>;

/// Changes which lines there are.
pub(crate) struct LogHandle {
    filter: reload::Handle<EnvFilter, Below>,
    default: &'static str,
}

/// Checks a filter such as `debug` or `sd_engine=trace`.
pub(crate) fn filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Starts logging: what `filter` asks for, else what a service tells or, in other commands, warnings. `spans` sees the spans
/// whatever the log shows of them.
pub(crate) fn start(
    format: LogFormat,
    filter: Option<&str>,
    service: bool,
    spans: Option<SpanLayer>,
) -> LogHandle {
    let default = if service { "info" } else { "warn" };
    let (lines, handle) = reload::Layer::new(EnvFilter::new(filter.unwrap_or(default)));
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let layer = match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().boxed(),
    };
    let harmless = filter_fn(is_harmless).with_max_level_hint(LevelFilter::TRACE);
    tracing_subscriber::registry().with(spans).with(layer.with_filter(lines.and(harmless))).init();
    LogHandle { filter: handle, default }
}

/// The HTTP client tells at its finest level each byte that it sends: tokens too.
fn is_harmless(metadata: &Metadata<'_>) -> bool {
    *metadata.level() < Level::TRACE || !metadata.target().starts_with("ureq")
}

impl LogHandle {
    /// Takes another filter; `None` means the one that is built in.
    pub(crate) fn set(&self, filter: Option<&str>) -> Result<(), String> {
        self.filter.reload(EnvFilter::new(filter.unwrap_or(self.default))).map_err(|error| error.to_string())
    }
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHandle").field("default", &self.default).finish_non_exhaustive()
    }
}
