//! Extra networks in a prompt: `<lora:name:weight>`.

use operations_contract::FieldError;
use serde_json::{Value, json};

/// A prompt without its tags, and the LoRAs that they named.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Tagged {
    pub(crate) prompt: String,
    pub(crate) loras: Vec<Value>,
    pub(crate) faults: Vec<FieldError>,
}

/// Takes the tags out. What looks like one but is none stays in the prompt, as with the web UI.
pub(crate) fn take_tags(prompt: &str) -> Tagged {
    let mut tagged = Tagged::default();
    let mut rest = prompt;
    while let Some(start) = rest.find('<') {
        let (before, tag) = rest.split_at(start);
        tagged.prompt.push_str(before);
        let end = tag.find('>').filter(|end| !tag[1..*end].contains('<'));
        match end.map(|end| (&tag[1..end], &tag[end + 1..])) {
            Some((inner, after)) if tagged.take(inner) => rest = after,
            _ => {
                tagged.prompt.push('<');
                rest = &tag[1..];
            }
        }
    }
    tagged.prompt.push_str(rest);
    tagged
}

impl Tagged {
    /// Whether the text between `<` and `>` is a tag.
    fn take(&mut self, inner: &str) -> bool {
        let mut parts = inner.split(':');
        let (kind, name) = (parts.next().unwrap_or_default(), parts.next());
        let Some(name) = name.filter(|name| !name.is_empty()) else { return false };
        match kind {
            "lora" | "lyco" => {
                let weights: Vec<&str> = parts.collect();
                match scale(&weights) {
                    Ok(scale) => self.loras.push(json!({"name": name, "scale": scale})),
                    Err(message) => {
                        let shown = format!("<{inner}>");
                        self.faults.push(FieldError::new("prompt", format!("`{shown}` {message}")));
                    }
                }
                true
            }
            "hypernet" => {
                let message = format!("`<{inner}>`: this worker has no hypernetworks");
                self.faults.push(FieldError::new("prompt", message));
                true
            }
            _ => false,
        }
    }
}

/// One weight for both networks. The web UI takes one for the text encoder and one for the UNet.
fn scale(weights: &[&str]) -> Result<f64, String> {
    let number = |text: &str| {
        text.trim().parse::<f64>().ok().filter(|n| n.is_finite()).ok_or("has a weight that is no number")
    };
    match weights {
        [] => Ok(1.0),
        [both] => Ok(number(both)?),
        [text, unet] if number(text)? == number(unet)? => Ok(number(text)?),
        [_, _] => Err("has two weights: here both networks take the same".into()),
        _ => Err("is not `<lora:name:weight>`".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_taken_out_and_the_rest_stays() {
        let tagged = take_tags("a cat <lora:ink:0.8>, <lyco:wash> night<lora:b:-1:-1>");
        assert_eq!(tagged.prompt, "a cat ,  night");
        assert_eq!(
            tagged.loras,
            [
                json!({"name": "ink", "scale": 0.8}),
                json!({"name": "wash", "scale": 1.0}),
                json!({"name": "b", "scale": -1.0})
            ]
        );
        assert!(tagged.faults.is_empty());
        for none in ["a < b", "<", "<3 cats>", "<lora:>", "<a:b>", "< <", "x > y"] {
            assert_eq!(take_tags(none), Tagged { prompt: none.into(), ..Tagged::default() }, "{none}");
        }
        assert_eq!(take_tags("<3 <lora:ink>").prompt, "<3 ");
    }

    #[test]
    fn what_cannot_be_done_is_told() {
        for broken in ["<lora:a:x>", "<lora:a:1:0.5>", "<lora:a:1:1:1>", "<hypernet:h:1>", "<lora:a:nan>"] {
            let tagged = take_tags(broken);
            assert_eq!((tagged.faults.len(), tagged.loras.len()), (1, 0), "{broken}");
            assert!(tagged.faults[0].message.contains(broken), "{}", tagged.faults[0].message);
        }
    }
}
