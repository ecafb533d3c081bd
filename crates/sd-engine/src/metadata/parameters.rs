//! The `parameters` text of A1111 and its kin, read back.
//!
//! Its form, as the AUTOMATIC1111 web UI documents and writes it: the prompt, a line (or more) that begins with `Negative
//! prompt:`, and a last line of settings, `Name: value` separated by commas; values with commas in them stand in double
//! quotes, escaped as in JSON.

use operations_contract::{Operation, Sampler, Schedule};
use serde_json::{Map, Value, json};

use super::{sampler_label, schedule_label};

const NEGATIVE: &str = "Negative prompt:";
/// So many settings make a line of settings; with fewer it is taken for a line of the prompt.
const LEAST_SETTINGS: usize = 3;

/// What the text says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Parameters {
    /// The prompt.
    pub prompt: String,
    /// The negative prompt; may be empty.
    pub negative_prompt: String,
    /// The settings, in order, as they are written.
    pub settings: Vec<(String, String)>,
}

/// A request made of such a text, as far as its settings have counterparts here.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Reconstructed {
    /// The request as `POST /v1/jobs` takes it, save for its pictures.
    pub request: Value,
    /// What is not in the request, in words.
    pub notes: Vec<String>,
}

impl Parameters {
    /// Reads the text. Whatever it is, something can be read: a text without settings is a prompt.
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        let (body, last) = text.rsplit_once('\n').unwrap_or(("", text));
        let settings = settings(last);
        let (body, settings) =
            if settings.len() < LEAST_SETTINGS { (text, Vec::new()) } else { (body, settings) };
        let (mut prompt, mut negative): (Vec<&str>, Option<Vec<&str>>) = (Vec::new(), None);
        for line in body.lines() {
            match (&mut negative, line.strip_prefix(NEGATIVE)) {
                (None, Some(rest)) => negative = Some(vec![rest.trim()]),
                (None, None) => prompt.push(line),
                (Some(lines), _) => lines.push(line),
            }
        }
        Self {
            prompt: prompt.join("\n").trim().to_owned(),
            negative_prompt: negative.unwrap_or_default().join("\n").trim().to_owned(),
            settings,
        }
    }

    /// The value of a setting.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The request for such a picture. Pixels of another program are not promised: it may read the prompt otherwise and
    /// draw its noise elsewhere.
    pub fn reconstruct(&self) -> Reconstructed {
        let mut builder = Builder::default();
        builder.text("prompt", &self.prompt);
        if !self.negative_prompt.is_empty() {
            builder.text("negative_prompt", &self.negative_prompt);
        }
        let hires = self.settings.iter().any(|(name, _)| name.starts_with("Hires"));
        let mut operation = "image_generation";
        for (name, value) in &self.settings {
            match name.as_str() {
                "Steps" => builder.number("steps", name, value),
                "CFG scale" => builder.number("guidance_scale", name, value),
                "Seed" => builder.number("seed", name, value),
                "Size" => builder.size(value),
                "Sampler" => builder.sampler(value),
                "Schedule type" => builder.schedule(value),
                "Clip skip" => builder.clip_skip(value),
                "RNG" => builder.rng(value),
                "Tiling" => builder.tiling(value),
                "Refiner switch at" => builder.refiner(value),
                "Refiner" => builder.note(format!("its refiner is `{value}`: name yours with --refiner")),
                "Denoising strength" if hires => {}
                "Denoising strength" => {
                    builder.number("strength", name, value);
                    if operation == "image_generation" {
                        operation = "image_transform";
                    }
                }
                "Mask blur" => {
                    builder.number("mask_blur", name, value);
                    operation = "image_inpaint";
                }
                "Model" => {
                    builder.note(format!("it was made with the model `{value}`: name yours with --model"))
                }
                "Model hash" => builder.note(format!("the hash of its model is {value}")),
                // Tells about the program, not about the picture.
                "Version" => {}
                _ => builder.note(format!("`{name}: {value}` has no counterpart here")),
            }
        }
        if hires {
            builder.note("its second pass (hires) is not in the request".into());
        }
        builder.finish(operation)
    }
}

/// Collects the request's fields.
#[derive(Default)]
struct Builder {
    fields: Map<String, Value>,
    notes: Vec<String>,
}

impl Builder {
    fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    fn text(&mut self, field: &str, value: &str) {
        self.fields.insert(field.into(), value.into());
    }

    fn number(&mut self, field: &str, name: &str, value: &str) {
        match serde_json::from_str::<serde_json::Number>(value) {
            Ok(number) => drop(self.fields.insert(field.into(), number.into())),
            Err(_) => self.note(format!("`{name}: {value}` is no number")),
        }
    }

    /// Programs count the switch in steps, here it counts in timesteps: with evenly laid steps that is the same.
    fn refiner(&mut self, value: &str) {
        match serde_json::from_str::<serde_json::Number>(value) {
            Ok(start) => drop(self.fields.insert("refiner".into(), json!({"start": start}))),
            Err(_) => self.note(format!("`Refiner switch at: {value}` is no number")),
        }
    }

    fn size(&mut self, value: &str) {
        let sides =
            value.split_once('x').and_then(|(w, h)| Some((w.parse::<u32>().ok()?, h.parse::<u32>().ok()?)));
        match sides {
            Some((width, height)) => {
                self.fields.insert("width".into(), width.into());
                self.fields.insert("height".into(), height.into());
            }
            None => self.note(format!("`Size: {value}` is no size")),
        }
    }

    /// A sampler's label, which in older files ends with the schedule.
    fn sampler(&mut self, label: &str) {
        let known = |label: &str| {
            Sampler::ALL.iter().find(|sampler| sampler_label(**sampler).eq_ignore_ascii_case(label)).copied()
        };
        if let Some(sampler) = known(label) {
            self.text("sampler", sampler.as_str());
            return;
        }
        let parts = label.rsplit_once(' ').and_then(|(name, end)| Some((known(name)?, schedule_of(end)?)));
        match parts {
            Some((sampler, schedule)) => {
                self.text("sampler", sampler.as_str());
                self.text("schedule", schedule.as_str());
            }
            None => {
                self.note(format!("the sampler `{label}` has no counterpart here: the model's own is taken"))
            }
        }
    }

    fn schedule(&mut self, label: &str) {
        match schedule_of(label) {
            // Means another schedule for each sampler.
            _ if label == "Automatic" => {}
            Some(schedule) => self.text("schedule", schedule.as_str()),
            None => {
                self.note(format!("the schedule `{label}` has no counterpart here: the model's own is taken"))
            }
        }
    }

    /// Others count the layers that are used from the last one on, from 1; here it is how many are left out.
    fn clip_skip(&mut self, value: &str) {
        match value.parse::<u32>() {
            Ok(last) => drop(self.fields.insert("clip_skip".into(), last.saturating_sub(1).into())),
            Err(_) => self.note(format!("`Clip skip: {value}` is no number")),
        }
    }

    fn rng(&mut self, value: &str) {
        match value {
            "CPU" => self.text("rng", "torch_cpu"),
            "GPU" | "NV" => self.text("rng", "philox"),
            _ => self.note(format!("`RNG: {value}` has no counterpart here")),
        }
    }

    /// Both directions, as others write it, or one of them.
    fn tiling(&mut self, value: &str) {
        match value {
            "True" | "x" | "y" => {
                let tiling = json!({"x": value != "y", "y": value != "x"});
                self.fields.insert("tiling".into(), tiling);
            }
            _ => self.note(format!("`Tiling: {value}` has no counterpart here")),
        }
    }

    /// Leaves out what the contract does not take, and says so.
    fn finish(mut self, operation: &str) -> Reconstructed {
        self.text("operation", operation);
        let mut request = Value::Object(self.fields);
        let faults = Operation::parse(&request).faults;
        for fault in faults {
            // Pictures are never in a text, and a prompt that is too long is for the reader to write.
            let whole = fault.field.split('.').next().unwrap_or_default();
            if let Some(value) = request.as_object_mut().and_then(|fields| fields.remove(whole)) {
                self.notes
                    .push(format!("`{}: {value}` cannot be asked for here: {}", fault.field, fault.message));
                if fault.field == "prompt" {
                    request["prompt"] = json!("");
                }
            }
        }
        Reconstructed { request, notes: self.notes }
    }
}

fn schedule_of(label: &str) -> Option<Schedule> {
    Schedule::ALL.iter().find(|schedule| schedule_label(**schedule).eq_ignore_ascii_case(label)).copied()
}

/// The settings in a line: all of it, or none.
fn settings(line: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let Some((name, after)) = rest.split_once(':') else { return Vec::new() };
        let name = name.trim();
        // A name is a few words; anything else is a sentence with a colon in it.
        if name.is_empty() || name.contains([',', '"', '{']) || name.len() > 60 {
            return Vec::new();
        }
        let after = after.trim_start();
        let (value, next) = match quoted(after) {
            Some(found) => found,
            None => {
                let (value, next) = after.split_once(',').unwrap_or((after, ""));
                (value.trim().to_owned(), next)
            }
        };
        found.push((name.to_owned(), value));
        rest = next.trim_start_matches(',').trim_start();
    }
    found
}

/// A value in double quotes at the beginning of a text, and what comes after it and its comma.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut values =
        serde_json::Deserializer::from_str(text.starts_with('"').then_some(text)?).into_iter::<String>();
    let value = values.next()?.ok()?;
    let rest = text.get(values.byte_offset()..)?.trim_start();
    match rest.is_empty() || rest.starts_with(',') {
        true => Some((value, rest)),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "a (detailed:1.2) castle,\nby night\nNegative prompt: blurry,\nugly\nSteps: 28, Sampler: DPM++ 2M Karras, \
        CFG scale: 6.5, Seed: 4294967296, Size: 512x768, Model hash: 6ce0161689, Model: v1-5-pruned, Clip skip: 2, \
        Lora hashes: \"one: 1234, two: 5678\", Version: v1.6.0";

    #[test]
    fn a_text_of_a1111_is_taken_apart() {
        let parameters = Parameters::parse(FILE);
        assert_eq!(parameters.prompt, "a (detailed:1.2) castle,\nby night");
        assert_eq!(parameters.negative_prompt, "blurry,\nugly");
        assert_eq!(parameters.setting("Model hash"), Some("6ce0161689"));
        assert_eq!(parameters.setting("Lora hashes"), Some("one: 1234, two: 5678"));
        assert_eq!(parameters.settings.len(), 10);
    }

    #[test]
    fn what_has_a_counterpart_becomes_a_request_and_the_rest_is_told() {
        let Reconstructed { request, notes } = Parameters::parse(FILE).reconstruct();
        assert_eq!(
            request,
            json!({
                "operation": "image_generation", "prompt": "a (detailed:1.2) castle,\nby night",
                "negative_prompt": "blurry,\nugly", "steps": 28, "sampler": "dpmpp_2m", "schedule": "karras",
                "guidance_scale": 6.5, "seed": 4_294_967_296u64, "width": 512, "height": 768, "clip_skip": 1,
            })
        );
        let notes = notes.join("\n");
        for told in ["6ce0161689", "v1-5-pruned", "Lora hashes"] {
            assert!(notes.contains(told), "{told} is not told: {notes}");
        }
        assert!(Operation::from_json(&request).is_ok());
    }

    #[test]
    fn the_kind_of_request_follows_from_its_settings() {
        let operation = |settings: &str| {
            let text = format!("x\nSteps: 20, Sampler: Euler a, Seed: 1, {settings}");
            Parameters::parse(&text).reconstruct().request["operation"].as_str().unwrap().to_owned()
        };
        assert_eq!(operation("CFG scale: 7"), "image_generation");
        assert_eq!(operation("Denoising strength: 0.5"), "image_transform");
        assert_eq!(operation("Denoising strength: 0.5, Mask blur: 4"), "image_inpaint");
        assert_eq!(operation("Mask blur: 4, Denoising strength: 0.5"), "image_inpaint");
        assert_eq!(operation("Denoising strength: 0.5, Hires upscale: 2"), "image_generation");
    }

    #[test]
    fn what_is_unknown_or_out_of_range_is_left_out_and_told() {
        let text = "x\nSteps: 500, Sampler: Restart, Schedule type: Turbo, CFG scale: 7, Seed: -1, Size: big";
        let Reconstructed { request, notes } = Parameters::parse(text).reconstruct();
        assert_eq!(request, json!({"operation": "image_generation", "prompt": "x", "guidance_scale": 7}));
        let notes = notes.join("\n");
        for told in ["500", "Restart", "Turbo", "-1", "big"] {
            assert!(notes.contains(told), "{told} is not told: {notes}");
        }
    }

    #[test]
    fn a_text_without_settings_is_a_prompt() {
        for text in ["a cat", "a cat: sitting, looking", "one\ntwo: three", "", "::,\",{"] {
            let parameters = Parameters::parse(text);
            assert_eq!((parameters.prompt.as_str(), parameters.settings.len()), (text, 0));
        }
    }

    #[test]
    fn every_sampler_and_schedule_is_known_by_its_label() {
        for sampler in Sampler::ALL {
            let mut builder = Builder::default();
            builder.sampler(sampler_label(*sampler));
            assert_eq!(builder.fields["sampler"], sampler.as_str());
        }
        for schedule in Schedule::ALL {
            assert_eq!(schedule_of(schedule_label(*schedule)), Some(*schedule));
        }
    }
}
