//! What a worker tells a router above it.

use serde::{Deserialize, Serialize};

use crate::model::ModelCapabilities;

/// The body of `POST /v1/worker-heartbeat`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Who tells it, and where that stands.
    pub worker: WorkerInfo,
    /// When it was sent: RFC 3339 in UTC, `2026-01-31T12:00:00.000Z`.
    pub timestamp: String,
}

/// A worker as a router knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Its name, the same in all of its heartbeats.
    pub id: String,
    /// The model that it serves when a request names none.
    pub model_id: String,
    /// Where it computes: `cpu`, `cuda:0`, ...
    pub device: String,
    /// The host at which it can be reached.
    pub host: String,
    /// The port at which it can be reached.
    pub port: u16,
    /// What it is up to.
    pub status: WorkerStatus,
    /// Which program it is.
    pub implementation: String,
    /// The version of that program.
    pub version: String,
    /// The models that requests may name, with their limits; empty until the default one is loaded.
    #[serde(default)]
    pub capabilities: Vec<ModelCapabilities>,
}

/// What a worker is up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WorkerStatus {
    /// It loads or warms up its model.
    Starting,
    /// It can take a job and has none.
    Ready,
    /// It has jobs; more can wait.
    Busy,
    /// It finishes what runs and takes nothing new.
    Stopping,
    /// It is gone.
    Stopped,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// What the router made of it, such as `ok`.
    pub status: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_has_the_fields_of_the_contract() {
        let heartbeat = Heartbeat {
            worker: WorkerInfo {
                id: "w1".into(),
                model_id: "demo".into(),
                device: "cpu".into(),
                host: "10.0.0.1".into(),
                port: 8600,
                status: WorkerStatus::Starting,
                implementation: "sd-worker".into(),
                version: "0.1.0".into(),
                capabilities: Vec::new(),
            },
            timestamp: "2026-01-31T12:00:00.000Z".into(),
        };
        let value = serde_json::to_value(&heartbeat).unwrap();
        let expected = serde_json::json!({
            "worker": {"id": "w1", "model_id": "demo", "device": "cpu", "host": "10.0.0.1", "port": 8600,
                       "status": "starting", "implementation": "sd-worker", "version": "0.1.0", "capabilities": []},
            "timestamp": "2026-01-31T12:00:00.000Z",
        });
        assert_eq!(value, expected);
        assert_eq!(serde_json::from_value::<Heartbeat>(value).unwrap(), heartbeat);
    }

    #[test]
    fn an_answer_needs_no_message() {
        let answer: HeartbeatAnswer = serde_json::from_str(r#"{"status": "ok"}"#).unwrap();
        assert_eq!((answer.status.as_str(), answer.message), ("ok", None));
    }
}
