//! What flag and environment say of the collector. The variables are those of OpenTelemetry's specification of OTLP exporters.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use ureq::http::{HeaderName, HeaderValue};

use super::{checked, traces_url};
use crate::exit::Failure;

/// How long a collector may take to answer, by the specification.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The one form that is sent.
const PROTOCOL: &str = "http/protobuf";

/// The collector, and how it is spoken to.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) url: String,
    /// Marked as secrets.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) timeout: Duration,
    /// What is not wrong but should be known.
    pub(super) warning: Option<String>,
}

impl Settings {
    /// By the value of `--otlp-endpoint` and by the environment; `None` where no collector is named, or no traces are wanted.
    pub(super) fn new(
        flag: Option<&str>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, Failure> {
        let variable = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
        // Those that are for traces alone win.
        let option = |name: &str| {
            [format!("OTEL_EXPORTER_OTLP_TRACES_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")]
                .into_iter()
                .find_map(|name| variable(&name).map(|value| (name, value)))
        };
        let is =
            |name: &str, wanted: &str| variable(name).is_some_and(|value| value.eq_ignore_ascii_case(wanted));
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        let url = match (flag, option("ENDPOINT")) {
            (Some(flag), _) => flag.to_owned(),
            (None, Some((name, value))) => {
                // That for traces alone is taken as it is.
                let is_whole = name.contains("TRACES");
                let url = if is_whole { checked(&value).map(|_| value) } else { traces_url(&value) };
                url.map_err(|reason| Failure::refused(format!("{name} {reason}")))?
            }
            (None, None) => return Ok(None),
        };
        let timeout =
            match option("TIMEOUT") {
                Some((name, value)) => value.trim().parse().map(Duration::from_millis).map_err(|_| {
                    Failure::refused(format!("{name}: `{value}` is no number of milliseconds"))
                })?,
                None => TIMEOUT,
            };
        let headers = option("HEADERS").map(|(name, value)| headers(&name, &value)).transpose()?;
        let warning = option("PROTOCOL").filter(|(_, value)| value != PROTOCOL).map(|(name, value)| {
            format!(
                "{name} is {value}, but traces are sent as {PROTOCOL}: the collector must take that at {url}"
            )
        });
        Ok(Some(Self { url, headers: headers.unwrap_or_default(), timeout, warning }))
    }
}

/// `name=value` pairs with commas between them, the values percent-encoded. No value is ever told.
fn headers(variable: &str, list: &str) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
    let pairs = list.split(',').filter(|pair| !pair.trim().is_empty());
    pairs
        .enumerate()
        .map(|(index, pair)| {
            header(pair).ok_or_else(|| {
                Failure::refused(format!("{variable}: entry {} is no `name=value` of a header", index + 1))
            })
        })
        .collect()
}

fn header(pair: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = pair.split_once('=')?;
    let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
    let mut value: HeaderValue = value.parse().ok()?;
    value.set_sensitive(true);
    Some((name.trim().parse().ok()?, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(flag: Option<&str>, variables: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        let value = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Settings::new(flag, value).map_err(|failure| failure.message)
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318/");
    const OF_TRACES: (&str, &str) = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:1/as/it/is");

    #[test]
    fn the_flag_wins_then_the_variable_for_traces_then_the_common_one() {
        let url = |flag, variables: &[_]| settings(flag, variables).unwrap().map(|settings| settings.url);
        assert_eq!(url(None, &[]), None);
        assert_eq!(url(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), None);
        assert_eq!(url(None, &[ENDPOINT]).unwrap(), "http://all:4318/v1/traces");
        assert_eq!(url(None, &[ENDPOINT, OF_TRACES]).unwrap(), OF_TRACES.1);
        assert_eq!(
            url(Some("http://flag/v1/traces"), &[ENDPOINT, OF_TRACES]).unwrap(),
            "http://flag/v1/traces"
        );
        assert_eq!(url(Some("http://flag/v1/traces"), &[("OTEL_SDK_DISABLED", "TRUE")]), None);
        assert_eq!(url(None, &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]), None);
    }

    #[test]
    fn headers_are_decoded_and_kept_secret() {
        let list = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20aHVzaA==, x-scope = a ,");
        let settings = settings(None, &[ENDPOINT, list]).unwrap().unwrap();
        let told: Vec<_> =
            settings.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(told, [("authorization", "Basic aHVzaA=="), ("x-scope", "a")]);
        assert!(!format!("{settings:?}").contains("aHVzaA"), "{settings:?}");
        assert_eq!(settings.timeout, TIMEOUT);
    }

    #[test]
    fn what_cannot_be_followed_is_told_with_its_variable() {
        for (variable, part) in [
            (("OTEL_EXPORTER_OTLP_ENDPOINT", "all:4318"), "OTEL_EXPORTER_OTLP_ENDPOINT must begin with http"),
            (("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "x"), "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT must begin"),
            (("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"), "OTEL_EXPORTER_OTLP_TIMEOUT: `10s` is no number"),
            (("OTEL_EXPORTER_OTLP_HEADERS", "a=b,hush"), "OTEL_EXPORTER_OTLP_HEADERS: entry 2"),
            (("OTEL_EXPORTER_OTLP_HEADERS", "a=%0Ahush"), "OTEL_EXPORTER_OTLP_HEADERS: entry 1"),
        ] {
            let told = settings(None, &[variable, ENDPOINT]).unwrap_err();
            assert!(told.contains(part) && !told.contains("hush"), "{told}");
        }
        let other = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let warning = settings(None, &[ENDPOINT, other]).unwrap().unwrap().warning.unwrap();
        assert!(warning.contains("OTEL_EXPORTER_OTLP_PROTOCOL is grpc"), "{warning}");
        assert!(settings(None, &[ENDPOINT]).unwrap().unwrap().warning.is_none());
    }
}
