//! The collector: spans go to it batch by batch, from a thread of their own.

use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use prost::Message;
use ureq::Agent;

use super::settings::Settings;

/// No collector says more than this.
const LONGEST_ANSWER: u64 = 64 << 10;

/// Posts spans as OTLP does it over HTTP: protobuf. `opentelemetry-otlp` does the same; it comes with a client of its own beside
/// that of this worker, and with procedural macros that let everything be compiled a second time for this feature.
#[derive(Debug)]
pub(super) struct Collector {
    agent: Agent,
    settings: Settings,
    resource: ResourceAttributesWithSchema,
    /// Whether it did not take the last batch.
    is_away: AtomicBool,
}

impl Collector {
    pub(super) fn new(settings: Settings) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(settings.timeout))
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("sd-worker/", env!("CARGO_PKG_VERSION")))
            .build();
        let resource = ResourceAttributesWithSchema::default();
        Self { agent: config.new_agent(), settings, resource, is_away: AtomicBool::new(false) }
    }

    fn post(&self, batch: Vec<SpanData>) -> Result<(), String> {
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let mut request = self.agent.post(&self.settings.url).content_type("application/x-protobuf");
        for (name, value) in &self.settings.headers {
            request = request.header(name, value);
        }
        let mut response = request.send(&body).map_err(|error| error.to_string())?;
        // Whoever reads to the end keeps the connection.
        let _answer = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec();
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("it answered {status}")),
        }
    }
}

impl SpanExporter for Collector {
    /// What the collector does not take is lost: jobs do not wait for it, and memory is not kept for it.
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (url, spans) = (&self.settings.url, batch.len());
        let posted = self.post(batch);
        let was_away = self.is_away.swap(posted.is_err(), Ordering::Relaxed);
        // Once is enough for people; what follows is for whoever looks closer.
        match &posted {
            Err(reason) if was_away => tracing::debug!(spans, "spans are lost: {reason}"),
            Err(reason) => {
                tracing::warn!(url, spans, "spans are lost, the collector does not take them: {reason}")
            }
            Ok(()) if was_away => tracing::info!(url, "the collector takes spans again"),
            Ok(()) => {}
        }
        posted.map_err(OTelSdkError::InternalFailure)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}
