//! From the spans of `tracing` to those of OpenTelemetry.

use std::collections::HashMap;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Level, Metadata, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;

use super::collector::Collector;
use super::settings::Settings;
use super::{SpanLayer, TracesArgs};
use crate::exit::Failure;

/// How long the end of the process waits for the last spans to be sent.
const FAREWELL: Duration = Duration::from_secs(3);
/// What the service and its tracer are called.
const NAME: &str = "sd-worker";
/// The steps of a job are told from here, the one kind of event beside warnings that goes with a trace.
const STEPS: &str = "sd_engine::spans";

/// What sends traces, if any are wanted.
#[derive(Debug, Default)]
pub(crate) struct Traces(Option<Sending>);

#[derive(Debug)]
struct Sending {
    provider: SdkTracerProvider,
    url: String,
    warning: Option<String>,
}

impl Traces {
    /// Begins to send, if flag or environment name a collector. The layer has to be put below that of the log.
    pub(crate) fn start(args: &TracesArgs, worker_id: &str) -> Result<(Option<SpanLayer>, Self), Failure> {
        let environment = |name: &str| std::env::var(name).ok();
        let Some(mut settings) = Settings::new(args.otlp_endpoint.as_deref(), environment)? else {
            return Ok((None, Self(None)));
        };
        let (url, warning) = (settings.url.clone(), settings.warning.take());
        let provider = SdkTracerProvider::builder()
            .with_resource(resource(worker_id))
            .with_batch_exporter(Collector::new(settings))
            .build();
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(NAME))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_filter(filter_fn(is_told))
            .boxed();
        Ok((Some(layer), Self(Some(Sending { provider, url, warning }))))
    }

    /// Says in the log what becomes of traces.
    pub(crate) fn announce(&self) {
        if let Some(Sending { url, warning, .. }) = &self.0 {
            if let Some(warning) = warning {
                tracing::warn!("{warning}");
            }
            tracing::info!(url, "traces are sent");
        }
    }

    /// Sends what is left, within a time.
    pub(crate) fn stop(self) {
        let Some(Sending { provider, .. }) = self.0 else { return };
        if let Err(error) = provider.shutdown_with_timeout(FAREWELL) {
            tracing::warn!("the last spans are lost: {error}");
        }
    }
}

/// The spans of this worker, their steps, and what is wrong with them.
fn is_told(metadata: &Metadata<'_>) -> bool {
    let is_own = metadata.target().starts_with("sd_");
    is_own && (metadata.is_span() || *metadata.level() <= Level::WARN || metadata.target() == STEPS)
}

/// Who sends: what `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say, and beneath them what the worker knows of itself.
fn resource(worker_id: &str) -> Resource {
    let own = [
        KeyValue::new("service.name", NAME),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", worker_id.to_owned()),
    ];
    let resource = Resource::builder_empty()
        .with_attributes(own)
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    match std::env::var("OTEL_SERVICE_NAME") {
        Ok(name) if !name.is_empty() => resource.with_service_name(name).build(),
        _ => resource.build(),
    }
}

/// Makes a job's new span a part of the trace that `traceparent` names. What names none is ignored.
pub(crate) fn adopt(job: &Span, traceparent: &str) {
    let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract(&carrier);
    if context.span().span_context().is_valid() {
        // Where no traces are sent there is nothing to be set.
        let _no_layer = job.set_parent(context);
    }
}
