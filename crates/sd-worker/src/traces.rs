//! Traces: the spans of jobs, sent to an OpenTelemetry collector. Builds with the feature `otel` do it, others say that they
//! cannot.

#[cfg(feature = "otel")]
mod collector;
#[cfg(feature = "otel")]
mod export;
#[cfg(feature = "otel")]
mod settings;

use clap::Args;
use tracing_subscriber::{Layer, Registry};

#[cfg(feature = "otel")]
pub(crate) use export::{Traces, adopt};
#[cfg(not(feature = "otel"))]
pub(crate) use missing::{Traces, adopt};

/// Whether this build can do it.
pub(crate) const BUILT_IN: bool = cfg!(feature = "otel");
/// The name of the feature.
pub(crate) const FEATURE: &str = "otel";
/// Where a collector takes traces, below its address.
const PATH: &str = "/v1/traces";

/// What sees the spans.
pub(crate) type SpanLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Where traces go.
#[derive(Debug, Args)]
pub(crate) struct TracesArgs {
    /// The OpenTelemetry collector that gets a trace of each job, as OTLP over HTTP: `http://127.0.0.1:4318`. Only builds with
    /// the feature `otel` know it [default: that of OTEL_EXPORTER_OTLP_ENDPOINT, or none].
    #[arg(long, env = "SD_WORKER_OTLP_ENDPOINT", value_name = "URL", value_parser = endpoint)]
    pub(crate) otlp_endpoint: Option<String>,
}

fn endpoint(text: &str) -> Result<String, String> {
    match BUILT_IN {
        true => traces_url(text),
        false => Err(format!(
            "this worker sends no traces: it was built without the feature `{FEATURE}` (cargo build --features {FEATURE})"
        )),
    }
}

/// Where a collector with this address takes traces; the address may name that place already.
fn traces_url(text: &str) -> Result<String, String> {
    let uri = checked(text)?;
    if uri.query().is_some() {
        return Err("must have no query".into());
    }
    let base = text.trim_end_matches('/');
    Ok(if base.ends_with(PATH) { base.to_owned() } else { format!("{base}{PATH}") })
}

/// An address that can be posted to and holds no secret.
fn checked(text: &str) -> Result<ureq::http::Uri, String> {
    let uri: ureq::http::Uri = text.parse().map_err(|error| format!("is no address: {error}"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err("must begin with http:// or https:// and name a host".into());
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("must hold no name and password: they go into OTEL_EXPORTER_OTLP_HEADERS".into());
    }
    Ok(uri)
}

#[cfg(not(feature = "otel"))]
mod missing {
    use tracing::Span;

    use super::{FEATURE, SpanLayer, TracesArgs};
    use crate::exit::Failure;

    /// No traces.
    #[derive(Debug, Default)]
    pub(crate) struct Traces {
        wanted_by: Option<&'static str>,
    }

    impl Traces {
        /// The flag was refused when it was read. The variable may be there for all programs of a machine.
        pub(crate) fn start(_: &TracesArgs, _: &str) -> Result<(Option<SpanLayer>, Self), Failure> {
            let variables = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
            let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
            Ok((None, Self { wanted_by: variables.into_iter().find(is_set) }))
        }

        /// Says in the log what becomes of traces.
        pub(crate) fn announce(&self) {
            if let Some(variable) = self.wanted_by {
                tracing::warn!(
                    "{variable} is set, but this worker was built without the feature `{FEATURE}`: it sends no traces"
                );
            }
        }

        /// Nothing is left to send.
        pub(crate) fn stop(self) {}
    }

    /// There is no trace to become a part of.
    pub(crate) fn adopt(_: &Span, _: &str) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_go_to_their_place_at_the_collector() {
        for base in ["http://collector:4318", "http://collector:4318/", "http://collector:4318/v1/traces"] {
            assert_eq!(traces_url(base).unwrap(), "http://collector:4318/v1/traces");
        }
        assert_eq!(traces_url("https://a/b").unwrap(), "https://a/b/v1/traces");
        for wrong in ["collector:4318", "ftp://a", "/v1", "http://", "http://a?b=c", "http://me:hush@a", ""] {
            let told = traces_url(wrong).unwrap_err();
            assert!(!told.contains("hush"), "{wrong}: {told}");
        }
    }

    #[test]
    fn a_build_without_traces_says_how_to_get_them() {
        let told = endpoint("http://collector:4318");
        assert_eq!(told.is_ok(), BUILT_IN, "{told:?}");
        assert!(
            told.is_ok_and(|url| url.ends_with(PATH))
                || endpoint("x").unwrap_err().contains("--features otel")
        );
    }
}
