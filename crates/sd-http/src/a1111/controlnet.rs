//! `alwayson_scripts`: the units of the ControlNet extension. All other scripts are refused.

use serde_json::{Value, json};

use super::payload::{Payload, says_nothing};
use super::request::fault;
use super::settings::checkpoint;

const PATH: &str = "alwayson_scripts.controlnet.args";

pub(crate) fn translate(payload: &mut Payload<'_>) {
    let Some(value) = payload.take("alwayson_scripts") else { return };
    let Some(scripts) = value.as_object() else {
        payload.refuse("alwayson_scripts", value, "must be an object");
        return;
    };
    let mut controls = Vec::new();
    for (name, script) in scripts {
        let args = script.get("args").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if name.eq_ignore_ascii_case("controlnet") {
            let units = args.iter().enumerate().filter(|(_, unit)| is_enabled(unit));
            controls.extend(units.map(|(index, unit)| control(payload, index, unit)));
        } else if !args.iter().all(|arg| says_nothing(arg) || arg == &Value::Bool(false)) {
            let shown: String = name.chars().take(80).collect();
            let message = "is a script that this worker does not have";
            payload.faults.push(fault(format!("alwayson_scripts.{shown}"), message, &Value::Null));
        }
    }
    if !controls.is_empty() {
        payload.put("control", controls);
    }
}

/// The name of a field of `control` in a unit: `[0].kind` is `model` of the first.
pub(crate) fn their_name(rest: &str) -> String {
    let (index, field) = rest.split_once('.').unwrap_or((rest, ""));
    let theirs = match field {
        "" => return format!("{PATH}{index}"),
        "kind" => "model",
        "strength" => "weight",
        "start" => "guidance_start",
        "end" => "guidance_end",
        "preprocess" => "module",
        other => other,
    };
    format!("{PATH}{index}.{theirs}")
}

fn is_enabled(unit: &Value) -> bool {
    unit.get("enabled") != Some(&Value::Bool(false))
        && unit.get("model").is_some_and(|model| !says_nothing(model))
}

/// One unit as an entry of `control`.
fn control(payload: &mut Payload<'_>, index: usize, unit: &Value) -> Value {
    let field = |name: &str| unit.get(name).filter(|value| !says_nothing(value));
    let mut refuse = |name: &str, value: &Value, message: &str| {
        payload.faults.push(fault(format!("{PATH}[{index}].{name}"), message, value));
    };
    let preprocess = match field("module").map_or(Some("none"), Value::as_str) {
        Some("none" | "None") => "none",
        Some("canny") => {
            // Clients send 64 or -1 when nobody chose: the extension's own, which are these.
            for (name, own) in [("threshold_a", 100.0), ("threshold_b", 200.0)] {
                let given = field(name).and_then(Value::as_f64).filter(|given| *given != own);
                if let Some(given) = given.filter(|given| *given != 64.0 && *given >= 0.0) {
                    refuse(name, &given.into(), "is possible as 100 and 200 only");
                }
            }
            "canny"
        }
        _ => {
            refuse(
                "module",
                &unit["module"],
                "is possible as none and canny only: send a picture that is ready",
            );
            "none"
        }
    };
    if let Some(mode) = field("control_mode").filter(|mode| **mode != "Balanced" && mode.as_i64() != Some(0))
    {
        refuse("control_mode", mode, "is possible as Balanced only");
    }
    if let Some(mask) = field("mask") {
        refuse("mask", mask, "is not possible");
    }
    let image = field("image").or(field("input_image"));
    let image = image.and_then(|image| image.get("image")).or(image);
    let model = unit["model"].as_str().map(checkpoint).unwrap_or_default();
    json!({
        "kind": model,
        "image": image,
        "preprocess": preprocess,
        "strength": field("weight").cloned().unwrap_or(1.0.into()),
        "start": field("guidance_start").cloned().unwrap_or(0.0.into()),
        "end": field("guidance_end").cloned().unwrap_or(1.0.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_the_fields_of_a_unit() {
        assert_eq!(their_name("[1].kind"), "alwayson_scripts.controlnet.args[1].model");
        assert_eq!(their_name("[0].image"), "alwayson_scripts.controlnet.args[0].image");
        assert_eq!(their_name(""), "alwayson_scripts.controlnet.args");
    }
}
