//! `sd-worker info`: what this build and this machine can do.

use sd_inference::machine::available_memory;

use crate::exit::{Failure, say};
use crate::{threads, traces};

pub(crate) fn run(wanted: Option<u16>) -> Result<(), Failure> {
    let features = sd_inference::accelerators().join(", ");
    let memory = match available_memory() {
        Some(memory) => memory.to_string(),
        None => "unknown: this system does not tell".into(),
    };
    let report = [
        format!("sd-worker {}", env!("CARGO_PKG_VERSION")),
        format!("accelerators: {}", if features.is_empty() { "none" } else { &features }),
        format!(
            "traces: {}",
            if traces::BUILT_IN { "OTLP over HTTP" } else { "none: built without the feature otel" }
        ),
        format!("threads: {}", threads::explain(wanted)),
        format!("memory available: {memory}"),
        sd_inference::cpu_kernels_report(),
    ];
    say(report.join("\n"))
}
