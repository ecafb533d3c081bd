//! `sd-worker inspect`: the request that makes a picture again, from what its file tells.

use std::path::Path;

use clap::{Arg, ArgAction, CommandFactory};
use operations_contract::OperationKind;
use sd_engine::{FileTexts, Parameters, read_texts, settings::VAE_TILING};
use serde_json::{Map, Value, json};

use crate::args::{Cli, InspectArgs};
use crate::exit::{Failure, say};

mod controls;
mod parts;

/// The command that enlarges.
const UPSCALE: &str = "upscale";

pub(crate) fn run(args: &InspectArgs) -> Result<(), Failure> {
    let refused = |reason: String| Failure::refused(format!("file {}: {reason}", args.file.display()));
    let bytes = std::fs::read(&args.file).map_err(|error| refused(error.to_string()))?;
    let texts = read_texts(&bytes).map_err(refused)?;
    let made = Making::of(&texts, &args.file).map_err(refused)?;
    if args.json {
        return say(made.report(&texts, &args.file));
    }
    for note in &made.notes {
        eprintln!("note: {note}");
    }
    say(quoted_line(&made.command))
}

/// A picture that a request needs and a file cannot carry.
pub(crate) struct Need {
    /// Where the request has it.
    pub(crate) field: String,
    /// The flag that names it, or `FILE`.
    pub(crate) flag: &'static str,
    /// What stands for it in the command.
    pub(crate) placeholder: String,
    /// What is known of it.
    pub(crate) known: String,
}

/// How a picture was made.
struct Making {
    /// As `POST /v1/jobs` takes it, save for its pictures.
    request: Value,
    /// The same as arguments, the program first.
    command: Vec<String>,
    /// The pictures that it needs.
    needs: Vec<Need>,
    /// What else it needs beside the model.
    parts: Vec<parts::Part>,
    notes: Vec<String>,
    own: bool,
}

impl Making {
    fn of(texts: &FileTexts, file: &Path) -> Result<Self, String> {
        let settings = texts.parameters.as_deref().map(Parameters::parse);
        let (mut request, mut notes, own) = match (&texts.json, &settings) {
            (Some(text), _) => {
                let request: Value = serde_json::from_str(text)
                    .map_err(|error| format!("its request cannot be read: {error}"))?;
                (request, Vec::new(), true)
            }
            (None, Some(parameters)) => {
                let made = parameters.reconstruct();
                (made.request, made.notes, false)
            }
            (None, None) if texts.comfy_graph => {
                return Err("holds a graph of ComfyUI and no `parameters` text; graphs are not read".into());
            }
            (None, None) => return Err("tells nothing about its making".into()),
        };
        let fields = request.as_object_mut().ok_or("its request is no JSON object")?;
        let kind: OperationKind = fields
            .get("operation")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .parse()
            .map_err(|error: operations_contract::UnknownName| error.to_string())?;
        let mut needs = needed(kind, fields);
        for Need { field, placeholder, known, .. } in &needs {
            fields.remove(field);
            notes.push(format!("{placeholder} stands for the picture that it was made from{known}"));
        }
        let mut command = Command::new(kind);
        command.fields(fields, &mut notes);
        let tiled = settings.as_ref().is_some_and(|settings| own && settings.setting(VAE_TILING).is_some());
        if tiled && command.argument("vae_tiling").is_some() {
            command.arguments.push("--vae-tiling=always".into());
        }
        let told = settings.as_ref().filter(|_| own);
        let parts = parts::of(told, fields, |flag| command.argument(flag).is_some());
        command.arguments.extend(parts.iter().map(parts::Part::argument));
        notes.extend(parts.iter().map(parts::Part::note));
        for Need { flag, placeholder, .. } in &needs {
            match flag.starts_with("--") {
                true => command.arguments.push(format!("{flag}={placeholder}")),
                false => command.first.clone_from(placeholder),
            }
        }
        let controls = controls::of(fields);
        command.arguments.extend(controls.arguments);
        notes.extend(controls.notes);
        needs.extend(controls.needs);
        command.arguments.push(format!("--output={}", again(file, texts.format)));
        Ok(Self { command: command.finish(), request, needs, parts, notes, own })
    }

    fn report(&self, texts: &FileTexts, file: &Path) -> Value {
        let need = |Need { field, flag, placeholder, .. }: &Need| json!({"field": field, "flag": flag, "placeholder": placeholder});
        json!({
            "file": file,
            "format": texts.format,
            "width": texts.size.0,
            "height": texts.size.1,
            "own": self.own,
            "request": self.request,
            "command": self.command,
            "needs": self.needs.iter().map(need).collect::<Vec<_>>(),
            "parts": self.parts.iter().map(parts::Part::report).collect::<Vec<_>>(),
            "notes": self.notes,
            "parameters": texts.parameters,
        })
    }
}

/// The pictures that a request needs. Files tell only their sizes.
fn needed(kind: OperationKind, fields: &Map<String, Value>) -> Vec<Need> {
    let told = |field: &str| match fields.get(field).and_then(Value::as_str) {
        Some(size) if !size.is_empty() => format!(", a file of {size}"),
        _ => String::new(),
    };
    let need = |field: &str, flag| Need {
        field: field.into(),
        flag,
        placeholder: field.to_uppercase(),
        known: told(field),
    };
    let mut needs = Vec::new();
    if kind == OperationKind::ImageUpscale {
        return vec![need("image", "FILE")];
    }
    if kind != OperationKind::ImageGeneration {
        needs.push(need("init_image", "--image"));
    }
    // Our own requests name the mask where there was one; those of others never do.
    let other_mask =
        fields.contains_key("extend") || fields.get("mask_from_alpha") == Some(&Value::Bool(true));
    if kind == OperationKind::ImageInpaint && (fields.contains_key("mask_image") || !other_mask) {
        needs.push(need("mask_image", "--mask"));
    }
    needs
}

/// A command line in the making: fields become flags by their names.
struct Command {
    known: clap::Command,
    /// The argument without a flag: the prompt, or the picture that is enlarged.
    first: String,
    arguments: Vec<String>,
}

impl Command {
    fn new(kind: OperationKind) -> Self {
        let name = match kind {
            OperationKind::ImageTransform => "transform",
            OperationKind::ImageInpaint => "inpaint",
            OperationKind::ImageUpscale => UPSCALE,
            _ => "generate",
        };
        let known = Cli::command().find_subcommand(name).cloned().unwrap_or_default().name(name);
        Self { known, first: String::new(), arguments: Vec::new() }
    }

    /// The flag of this name, with `_` for `-`.
    fn argument(&self, name: &str) -> Option<&Arg> {
        let long = name.replace('_', "-");
        self.known.get_arguments().find(|arg| arg.get_long() == Some(long.as_str()))
    }

    fn fields(&mut self, fields: &Map<String, Value>, notes: &mut Vec<String>) {
        for (field, value) in fields {
            match (field.as_str(), value) {
                ("operation" | "num_images", _) => {}
                // They have flags of their own kind.
                ("control", Value::Array(_)) => {}
                // Looking on changes no picture.
                ("preview", _) => {}
                // Also the default: the environment may name another.
                ("model", Value::String(name)) if self.known.get_name() != UPSCALE => {
                    self.arguments.push(format!("--model={name}"));
                }
                ("loras", Value::Array(loras)) if self.argument("lora").is_some() => {
                    for lora in loras {
                        let name = lora.get("name").and_then(Value::as_str).unwrap_or_default();
                        let scale = lora.get("scale").and_then(Value::as_f64).unwrap_or(1.0);
                        self.arguments.push(format!("--lora={name}:{scale}"));
                        let found = "give its file instead, or --lora-dir with the folder that holds it";
                        notes.push(format!("the LoRA {name} is needed: {found}"));
                    }
                }
                ("model", Value::String(name)) if self.known.get_name() == UPSCALE => {
                    self.field(field, value, notes);
                    notes.push(format!("the network {name} is needed: give its file instead"));
                }
                ("prompt", _) => self.first = value.as_str().unwrap_or_default().to_owned(),
                ("output", Value::Object(output)) => {
                    if let Some(quality) = output.get("quality") {
                        self.field("quality", quality, notes);
                    }
                }
                ("extend", Value::Object(extend)) => {
                    let side = |name: &str| extend.get(name).and_then(Value::as_u64).unwrap_or(0).to_string();
                    let sides = ["left", "top", "right", "bottom"].map(side).join(",");
                    self.arguments.push(format!("--extend={sides}"));
                    if let Some(overlap) = extend.get("overlap") {
                        self.field("overlap", overlap, notes);
                    }
                }
                ("guidance_interval", Value::Object(interval)) if self.argument(field).is_some() => {
                    let end = |name: &str| interval.get(name).cloned().unwrap_or_default();
                    self.arguments.push(format!("--guidance-interval={},{}", end("start"), end("end")));
                }
                ("tiling", Value::Object(axes)) if self.argument("tiling").is_some() => {
                    let on = |axis: &str| axes.get(axis) == Some(&Value::Bool(true));
                    match (on("x"), on("y")) {
                        (true, true) => self.arguments.push("--tiling=both".into()),
                        (true, false) => self.arguments.push("--tiling=x".into()),
                        (false, true) => self.arguments.push("--tiling=y".into()),
                        (false, false) => {}
                    }
                }
                ("refiner", Value::Object(refiner)) if self.argument("refiner").is_some() => {
                    if let Some(start) = refiner.get("start") {
                        self.arguments.push(format!("--refiner-start={start}"));
                    }
                }
                // Parts of an object have flags that begin with its name.
                (_, Value::Object(parts)) if self.has_parts(field, parts) => {
                    for (part, value) in parts {
                        self.field(&format!("{field}_{part}"), value, notes);
                    }
                }
                _ => self.field(field, value, notes),
            }
        }
    }

    fn has_parts(&self, field: &str, parts: &Map<String, Value>) -> bool {
        parts.keys().any(|part| self.argument(&format!("{field}_{part}")).is_some())
    }

    /// A flag, if the command has one and its default is another.
    fn field(&mut self, field: &str, value: &Value, notes: &mut Vec<String>) {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let off = matches!(text.as_str(), "" | "false" | "0" | "null" | "[]" | "{}");
        let flag = |name: &str| format!("--{}", name.replace('_', "-"));
        let without = format!("no_{field}");
        let is_switch = |arg: &&Arg| matches!(arg.get_action(), ArgAction::SetTrue);
        match self.argument(field) {
            Some(arg) if is_switch(&arg) && value == &Value::Bool(true) => self.arguments.push(flag(field)),
            Some(arg) if is_switch(&arg) => {}
            Some(arg)
                if arg.get_default_values().iter().any(|default| default.to_str() == Some(text.as_str())) => {
            }
            Some(_) if value.is_array() || value.is_object() => notes.push(left_out(field, value)),
            Some(_) => self.arguments.push(format!("{}={text}", flag(field))),
            None if value == &Value::Bool(false) && self.argument(&without).is_some() => {
                self.arguments.push(flag(&without));
            }
            // What can only be turned off is on.
            None if value == &Value::Bool(true) && self.argument(&without).is_some() => {}
            None if off => {}
            None => notes.push(left_out(field, value)),
        }
    }

    fn finish(self) -> Vec<String> {
        let mut line = vec!["sd-worker".to_owned(), self.known.get_name().to_owned()];
        match self.first.starts_with('-') {
            // Otherwise it would be taken for a flag.
            true => line.extend(self.arguments.into_iter().chain(["--".to_owned(), self.first])),
            false => line.extend([self.first].into_iter().chain(self.arguments)),
        }
        line
    }
}

fn left_out(field: &str, value: &Value) -> String {
    format!("the command line has no `{field}` ({value}): the request as JSON has")
}

/// `circle.png` as `circle-again.png`, with the ending of what the file is.
fn again(file: &Path, format: &str) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let ending = match format {
        "JPEG" => "jpg",
        "WebP" => "webp",
        _ => "png",
    };
    format!("{stem}-again.{ending}")
}

/// Arguments as a POSIX shell reads them.
fn quoted_line(arguments: &[String]) -> String {
    let quoted = |argument: &String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:+@%".contains(c);
        match !argument.is_empty() && argument.chars().all(plain) {
            true => argument.clone(),
            false => format!("'{}'", argument.replace('\'', r"'\''")),
        }
    };
    arguments.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn making(request: Value) -> Making {
        let texts = read_texts(&png(&[("sd-worker", &request.to_string())])).unwrap();
        Making::of(&texts, Path::new("folder/a b.png")).unwrap()
    }

    fn png(texts: &[(&str, &str)]) -> Vec<u8> {
        let texts: Vec<_> = texts.iter().map(|(key, text)| (*key, (*text).to_owned())).collect();
        let picture = sd_engine::Picture::filled(8, 8, [0; 3]);
        sd_engine::encode_image(&picture, &operations_contract::Output::default(), &texts).unwrap()
    }

    #[test]
    fn fields_become_flags_unless_their_defaults_do() {
        let made = making(json!({
            "operation": "image_generation", "prompt": "it's a star", "negative_prompt": "", "width": 64, "seed": 5,
            "rng": "torch_cpu", "clip_skip": 0, "guidance_scale": 4.0, "num_images": 1, "tiling": {},
            "output": {"format": "png", "quality": 90, "metadata": true},
        }));
        assert_eq!(
            quoted_line(&made.command),
            r"sd-worker generate 'it'\''s a star' --guidance-scale=4.0 --seed=5 --width=64 '--output=a b-again.png'"
        );
        assert!(made.notes.is_empty() && made.own, "{:?}", made.notes);
    }

    #[test]
    fn a_refiner_is_asked_for() {
        let made = making(json!({"operation": "image_generation", "prompt": "x", "refiner": {"start": 0.7}}));
        assert_eq!(
            quoted_line(&made.command),
            "sd-worker generate x --refiner-start=0.7 --refiner=REFINER '--output=a b-again.png'"
        );
        // It is a command.
        Cli::try_parse_from(&made.command).unwrap();
        assert_eq!(made.notes, ["REFINER stands for the refiner: give its name, folder or file"]);
    }

    #[test]
    fn pictures_that_are_needed_are_named() {
        let made = making(json!({
            "operation": "image_inpaint", "prompt": "-x", "init_image": "123 bytes", "mask_image": "45 bytes",
            "strength": 0.5, "output": {"format": "jpeg", "quality": 70, "metadata": true}, "unheard_of": 7,
        }));
        assert_eq!(
            quoted_line(&made.command),
            "sd-worker inpaint --quality=70 --strength=0.5 --image=INIT_IMAGE --mask=MASK_IMAGE '--output=a b-again.png' -- -x"
        );
        let notes = made.notes.join("\n");
        assert!(
            notes.contains("123 bytes") && notes.contains("45 bytes") && notes.contains("unheard_of"),
            "{notes}"
        );
        assert_eq!(made.request.get("init_image"), None);
    }

    #[test]
    fn controls_become_flags_with_placeholders_for_their_files() {
        let made = making(json!({
            "operation": "image_transform", "prompt": "x", "init_image": "7 bytes", "guess_mode": true,
            "control": [
                {"kind": "canny", "image": "99 bytes", "preprocess": "canny", "strength": 0.5, "start": 0.0, "end": 1.0},
                {"kind": "depth", "image": "5 bytes", "preprocess": "none", "strength": 1.0, "start": 0.25, "end": 0.75},
                {"kind": "canny", "image": "98 bytes"},
            ],
        }));
        assert_eq!(
            quoted_line(&made.command),
            "sd-worker transform x --guess-mode --image=INIT_IMAGE --controlnet=canny=CANNY_CONTROLNET \
             --controlnet=depth=DEPTH_CONTROLNET --control=canny=CONTROL_IMAGE_1,strength=0.5,preprocess=canny \
             --control=depth=CONTROL_IMAGE_2,start=0.25,end=0.75 --control=canny=CONTROL_IMAGE_3 '--output=a b-again.png'"
        );
        // It is a command.
        Cli::try_parse_from(&made.command).unwrap();
        let notes = made.notes.join("\n");
        for told in ["CONTROL_IMAGE_1", "99 bytes", "5 bytes", "98 bytes", "the ControlNet depth"] {
            assert!(notes.contains(told), "{told} is not in {notes}");
        }
        assert_eq!(made.request["control"][0].get("image"), None);
        let needs: Vec<&str> = made.needs.iter().map(|need| need.field.as_str()).collect();
        assert_eq!(needs, ["init_image", "control[0].image", "control[1].image", "control[2].image"]);
    }

    #[test]
    fn loras_become_flags_with_their_scales() {
        let made = making(json!({
            "operation": "image_generation", "prompt": "x",
            "loras": [{"name": "ink", "scale": 0.8}, {"name": "wash", "scale": -0.5}],
        }));
        assert_eq!(
            quoted_line(&made.command),
            "sd-worker generate x --lora=ink:0.8 --lora=wash:-0.5 '--output=a b-again.png'"
        );
        let notes = made.notes.join("\n");
        assert!(notes.contains("ink") && notes.contains("--lora-dir"), "{notes}");
    }

    #[test]
    fn files_that_tell_nothing_are_refused_each_for_its_reason() {
        let refused = |texts: &[(&str, &str)]| {
            let texts = read_texts(&png(texts)).unwrap();
            Making::of(&texts, Path::new("a.png")).err().unwrap()
        };
        assert_eq!(refused(&[]), "tells nothing about its making");
        assert!(refused(&[("workflow", "{}")]).contains("ComfyUI"));
        assert!(refused(&[("sd-worker", "{")]).contains("cannot be read"));
        assert!(refused(&[("sd-worker", "{\"operation\": \"x\"}")]).contains("`x` is no operation"));
        assert!(refused(&[("sd-worker", "[]")]).contains("no JSON object"));
    }

    #[test]
    fn a_text_of_another_program_is_enough() {
        let text = "a star\nSteps: 12, Sampler: Euler a, CFG scale: 7, Seed: 3, Size: 64x64, Model hash: abc";
        let texts = read_texts(&png(&[("parameters", text)])).unwrap();
        let made = Making::of(&texts, Path::new("s.png")).unwrap();
        let line = quoted_line(&made.command);
        for part in ["generate 'a star'", "--steps=12", "--sampler=euler_a", "--width=64", "--seed=3"] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert!(!made.own && made.notes.iter().any(|note| note.contains("abc")));
    }
}
