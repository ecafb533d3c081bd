//! What a picture was made with beside its model, as its file tells it: names, and never where a file lies.

use sd_inference::{GenerationRequest, Pipeline, PipelineInfo, Upscaler};
use serde_json::Value;

/// What the settings in a file's `parameters` call such things: where A1111 has a word for one, that.
pub mod settings {
    /// The side of the tiles that the VAE decoded, in pixels.
    pub const VAE_TILING: &str = "VAE tiling";
    /// What decoded in the place of a VAE.
    pub const VAE_DECODER: &str = "VAE Decoder";
    /// [`VAE_DECODER`] where it was a tiny autoencoder.
    pub const TAESD: &str = "TAESD";
    /// Another VAE than the model's.
    pub const VAE: &str = "VAE";
    /// Another UNet than the model's.
    pub const UNET: &str = "UNet";
    /// Where the configurations of a single file came from.
    pub const MODEL_CONFIG: &str = "Model config";
    /// The model that took over late in the run.
    pub const REFINER: &str = "Refiner";
    /// The network that enlarged between two passes.
    pub const HIRES_UPSCALER: &str = "Hires upscaler";
    /// A textual inversion that the prompts name; one setting for each.
    pub const TEXTUAL_INVERSION: &str = "Textual inversion";
}

/// A setting and its value.
pub(crate) type Circumstance = (&'static str, String);

/// What requests and files call that which was loaded in the place of a model's own parts, and beside them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartNames {
    /// Another VAE.
    pub vae: Option<String>,
    /// Another UNet.
    pub unet: Option<String>,
    /// Where configurations came from.
    pub config: Option<String>,
    /// A refiner.
    pub refiner: Option<String>,
}

impl PartNames {
    /// What all pictures of a request are made with on a pipeline of which `info` tells.
    pub(crate) fn used(&self, info: &PipelineInfo, request: &GenerationRequest) -> Vec<Circumstance> {
        let vae = match info.tiny_vae {
            true => setting(settings::VAE_DECODER, settings::TAESD),
            false => named(settings::VAE, self.vae.as_ref()),
        };
        let refiner = self.refiner.as_ref().filter(|_| request.refiner.is_some());
        let enlarges = request.hires.is_some_and(|hires| hires.upscaler == Upscaler::Network);
        let upscaler = info.upscaler.as_ref().filter(|_| enlarges).map(|upscaler| &upscaler.name);
        let beside = [
            named(settings::UNET, self.unet.as_ref()),
            named(settings::MODEL_CONFIG, self.config.as_ref()),
            named(settings::REFINER, refiner),
            named(settings::HIRES_UPSCALER, upscaler),
        ];
        vae.into_iter().chain(beside.into_iter().flatten()).collect()
    }
}

/// The textual inversions that the prompts of each image of a request name.
pub(crate) fn textual_inversions(
    pipeline: &Pipeline,
    request: &GenerationRequest,
) -> sd_inference::Result<Vec<Vec<Circumstance>>> {
    if pipeline.info().embeddings.is_empty() {
        return Ok(Vec::new());
    }
    let told = |name: &str| setting(settings::TEXTUAL_INVERSION, name);
    let reader = pipeline.prompt_reader()?;
    let of_image = |names: Vec<&str>| names.into_iter().filter_map(told).collect();
    Ok(reader.embeddings(request).into_iter().map(of_image).collect())
}

fn named(key: &'static str, name: Option<&String>) -> Option<Circumstance> {
    setting(key, name?)
}

/// A setting as A1111 writes it: a value in which its reader would lose the thread stands in quotes, escaped as in JSON.
fn setting(key: &'static str, value: &str) -> Option<Circumstance> {
    let loses = |c: char| matches!(c, ',' | ':' | '"') || c.is_control();
    let value = match value.trim() {
        "" => return None,
        value if value.contains(loses) => Value::from(value).to_string(),
        value => value.to_owned(),
    };
    Some((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Parameters;

    /// Names are those of files, which may be called anything.
    #[test]
    fn any_name_is_read_back_from_the_settings() {
        for name in ["sd-vae-ft-mse", "a, b: \"c\"", "two\nlines", "größe 2", "{x}", "\u{1b}[31m", "'"] {
            let (key, value) = setting(settings::VAE, name).unwrap();
            let text = format!("a star\nSteps: 3, Seed: 1, {key}: {value}, Version: 1");
            let read = Parameters::parse(&text);
            assert_eq!(read.setting(settings::VAE), Some(name), "{text}");
            assert_eq!((read.prompt.as_str(), read.settings.len()), ("a star", 4));
        }
        assert_eq!(setting(settings::VAE, " "), None);
    }
}
