//! ControlNets of a request as flags, with placeholders for what no picture's file carries.

use serde_json::{Map, Value};

use super::Need;

/// What `control` of a request becomes.
#[derive(Default)]
pub(super) struct Controls {
    pub(super) arguments: Vec<String>,
    pub(super) needs: Vec<Need>,
    pub(super) notes: Vec<String>,
}

/// Makes flags of the controls of a request, and takes the sizes of their pictures out of it.
pub(super) fn of(fields: &mut Map<String, Value>) -> Controls {
    let mut found = Controls::default();
    let Some(Value::Array(controls)) = fields.get_mut("control") else { return found };
    let mut nets: Vec<String> = Vec::new();
    for (index, control) in controls.iter_mut().enumerate() {
        let Some(control) = control.as_object_mut() else { continue };
        let size = control.remove("image");
        let Some(kind) = control.get("kind").and_then(Value::as_str) else { continue };
        let picture = format!("CONTROL_IMAGE_{}", index + 1);
        let mut argument = format!("--control={kind}={picture}");
        for (option, default) in [("strength", 1.0), ("start", 0.0), ("end", 1.0)] {
            if let Some(value) = control.get(option).filter(|value| value.as_f64() != Some(default)) {
                argument.push_str(&format!(",{option}={value}"));
            }
        }
        if let Some(preprocess) =
            control.get("preprocess").and_then(Value::as_str).filter(|name| *name != "none")
        {
            argument.push_str(&format!(",preprocess={preprocess}"));
        }
        let known =
            size.as_ref().and_then(Value::as_str).map_or(String::new(), |size| format!(", a file of {size}"));
        found.notes.push(format!("{picture} stands for the picture that steered it as {kind}{known}"));
        let field = format!("control[{index}].image");
        found.needs.push(Need { field, flag: "--control", placeholder: picture, known });
        found.arguments.push(argument);
        if !nets.iter().any(|net| net == kind) {
            nets.push(kind.to_owned());
        }
    }
    let placeholder = |net: &String| format!("--controlnet={net}={}_CONTROLNET", net.to_uppercase());
    found.arguments.splice(0..0, nets.iter().map(placeholder));
    found
        .notes
        .extend(nets.iter().map(|net| format!("the ControlNet {net} is needed: give its folder or file")));
    found
}
