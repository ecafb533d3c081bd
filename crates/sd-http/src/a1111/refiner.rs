//! `refiner_checkpoint` and `refiner_switch_at`: the second model of a run.
//!
//! Both sides count the share of the timesteps that is behind when it takes over: the web UI does so since 1.7, unless
//! `refiner_switch_by_sample_steps` is set.

use operations_contract::ModelCapabilities;
use serde_json::{Value, json};

use super::payload::{Payload, says_nothing};
use super::settings::checkpoint;

pub(crate) fn translate(payload: &mut Payload<'_>, model: Option<&ModelCapabilities>) {
    let at = payload.take("refiner_switch_at");
    let Some(given) = payload.take("refiner_checkpoint").filter(|name| !says_nothing(name)) else {
        // Without a model it says nothing.
        return;
    };
    // Without a worker's model the request is refused for that.
    if let Some(model) = model {
        match model.refiner.as_deref() {
            None => {
                payload.refuse("refiner_checkpoint", given, "is possible as null only: there is no refiner")
            }
            Some(own) if given.as_str().map(plain) == Some(plain(own)) => {}
            Some(own) => {
                payload.refuse(
                    "refiner_checkpoint",
                    given,
                    format!("is not on this worker; there is `{own}`"),
                );
            }
        }
    }
    match at.map(|at| (at, at.as_f64())) {
        // It would have its turn when all is done.
        Some((_, Some(at))) if at >= 1.0 => {}
        Some((_, Some(at))) => payload.put("refiner", json!({"start": at})),
        Some((at, None)) => payload.refuse("refiner_switch_at", at, "must be a number"),
        None => {
            let message =
                "must be sent with refiner_checkpoint, and be above 0: a refiner cannot begin with noise";
            payload.refuse("refiner_switch_at", &Value::Null, message);
        }
    }
}

/// A checkpoint without its hash and its ending.
fn plain(name: &str) -> &str {
    let name = checkpoint(name);
    name.strip_suffix(".safetensors").unwrap_or(name)
}
