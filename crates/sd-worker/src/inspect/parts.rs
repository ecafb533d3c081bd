//! What a picture was made with beside its model, as flags with placeholders: its file tells no more than names.

use sd_engine::{Parameters, settings};
use serde_json::{Map, Value, json};

/// The most characters of a name that are shown; the file may be anyone's.
const MAX_NAME: usize = 100;

/// A file or folder that the command needs.
pub(super) struct Part {
    flag: &'static str,
    /// What stands for it in the command.
    placeholder: String,
    /// What it is, in words.
    kind: &'static str,
    /// What it was called, where the file tells.
    name: Option<String>,
    /// What to put in the place, in words.
    give: &'static str,
}

impl Part {
    fn new(
        flag: &'static str,
        placeholder: impl Into<String>,
        kind: &'static str,
        give: &'static str,
    ) -> Self {
        Self { flag, placeholder: placeholder.into(), kind, name: None, give }
    }

    fn called(self, name: Option<&str>) -> Self {
        let shown = |name: &str| name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
        Self { name: name.map(shown), ..self }
    }

    pub(super) fn argument(&self) -> String {
        format!("{}={}", self.flag, self.placeholder)
    }

    pub(super) fn note(&self) -> String {
        let Self { placeholder, kind, give, .. } = self;
        let name = self.name.as_ref().map_or(String::new(), |name| format!(" {name}"));
        format!("{placeholder} stands for the {kind}{name}: give {give}")
    }

    pub(super) fn report(&self) -> Value {
        json!({"flag": self.flag, "placeholder": self.placeholder, "name": self.name})
    }
}

/// What the settings of a file of ours tell of, and what its request cannot do without. `takes` knows the command's flags.
pub(super) fn of(
    told: Option<&Parameters>,
    fields: &Map<String, Value>,
    takes: impl Fn(&str) -> bool,
) -> Vec<Part> {
    let setting = |key: &str| told.and_then(|told| told.setting(key));
    let mut parts = Vec::new();
    match (setting(settings::VAE_DECODER), setting(settings::VAE)) {
        (Some(_), _) => {
            let give = "its folder or file";
            parts.push(Part::new("--vae", settings::TAESD, "tiny autoencoder that decoded it", give));
        }
        (None, Some(name)) => {
            parts.push(Part::new("--vae", "VAE", "VAE", "its folder or file").called(Some(name)));
        }
        (None, None) => {}
    }
    if let Some(name) = setting(settings::UNET) {
        parts.push(Part::new("--unet", "UNET", "UNet", "its folder or file").called(Some(name)));
    }
    if let Some(name) = setting(settings::MODEL_CONFIG) {
        let part =
            Part::new("--model-config", "MODEL_CONFIG", "configurations of", "that model's name or folder");
        parts.push(part.called(Some(name)));
    }
    let all = told.map_or(&[][..], |told| &told.settings);
    let inversions = all.iter().filter(|(key, _)| key == settings::TEXTUAL_INVERSION);
    for (index, (_, name)) in inversions.enumerate() {
        let placeholder = format!("EMBEDDING_{}", index + 1);
        let part = Part::new("--embedding", placeholder, "textual inversion", "the file of that name");
        parts.push(part.called(Some(name)));
    }
    // These are part of the request, so that they are needed whatever their names were.
    if fields
        .get("hires")
        .and_then(|hires| hires.get("upscaler"))
        .is_some_and(|upscaler| upscaler == "network")
    {
        let part = Part::new("--upscaler", "UPSCALER", "upscaler", "its file");
        parts.push(part.called(setting(settings::HIRES_UPSCALER)));
    }
    if fields.get("refiner").is_some_and(Value::is_object) {
        let part = Part::new("--refiner", "REFINER", "refiner", "its name, folder or file");
        parts.push(part.called(setting(settings::REFINER)));
    }
    parts.retain(|part| takes(part.flag.trim_start_matches('-')));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(told: &str, fields: Value) -> Vec<Part> {
        let told = Parameters::parse(&format!("a star\nSteps: 3, Seed: 1, Size: 8x8, {told}"));
        of(Some(&told), fields.as_object().unwrap(), |flag| flag != "unet")
    }

    fn notes(parts: &[Part]) -> Vec<String> {
        parts.iter().map(Part::note).collect()
    }

    #[test]
    fn what_a_request_cannot_do_without_is_asked_for_whether_it_has_a_name_or_not() {
        let fields = json!({"hires": {"upscaler": "network"}, "refiner": {"start": 0.5}});
        let unnamed = parts("Version: 1", fields.clone());
        let arguments: Vec<String> = unnamed.iter().map(Part::argument).collect();
        assert_eq!(arguments, ["--upscaler=UPSCALER", "--refiner=REFINER"]);
        assert_eq!(notes(&unnamed)[0], "UPSCALER stands for the upscaler: give its file");
        assert_eq!(
            unnamed[0].report(),
            json!({"flag": "--upscaler", "placeholder": "UPSCALER", "name": null})
        );
        let named = parts("Refiner: xl, Hires upscaler: 4x", fields);
        let told = ["the upscaler 4x: give its file", "the refiner xl: give its name, folder or file"];
        assert!(
            notes(&named).iter().zip(told).all(|(note, told)| note.ends_with(told)),
            "{:?}",
            notes(&named)
        );
        let others = json!({"hires": {"upscaler": "latent"}, "refiner": null});
        assert_eq!(parts("Refiner: xl, Hires upscaler: 4x", others).len(), 0);
    }

    /// Files can be anyone's: their names get into no command, and into notes without what a terminal obeys.
    #[test]
    fn names_cannot_do_harm() {
        let name = Value::from(format!("\u{1b}[2J\n{}", "x".repeat(1000)));
        let parts = parts(
            &format!("VAE: {name}, UNet: u, Textual inversion: --bad, Textual inversion: $(b)"),
            json!({}),
        );
        let arguments: Vec<String> = parts.iter().map(Part::argument).collect();
        assert_eq!(arguments, ["--vae=VAE", "--embedding=EMBEDDING_1", "--embedding=EMBEDDING_2"]);
        let notes = notes(&parts);
        assert!(notes[0].len() < 200 && !notes[0].contains(char::is_control), "{notes:?}");
        assert!(notes[1].contains(" --bad:") && notes[2].contains(" $(b):"), "{notes:?}");
    }
}
