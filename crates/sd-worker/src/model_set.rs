//! Which models a service has, each with what belongs to it.

use clap::Parser;
use clap::builder::NonEmptyStringValueParser;

use crate::args::{ModelArgs, PlaceArgs, ServeArgs};
use crate::control::ControlNetArgs;

/// One model of a service and what it is loaded with. Also how a `[[models]]` of the configuration file is read: its keys are
/// flags without a command.
#[derive(Debug, Clone, Parser)]
#[command(name = "models", no_binary_name = true, disable_help_flag = true)]
pub(crate) struct ModelSetup {
    /// The name by which requests call the model [default: what `model` says].
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) args: ModelArgs,
    #[command(flatten)]
    pub(crate) nets: ControlNetArgs,
}

impl ModelSetup {
    /// What requests call it.
    pub(crate) fn id(&self) -> &str {
        self.name.as_deref().unwrap_or(self.args.name())
    }

    /// What its refiner is called: the last part of what names it, without an ending.
    pub(crate) fn refiner_name(&self) -> Option<String> {
        let last = self.args.refiner.as_deref()?.trim_end_matches('/').rsplit('/').next()?;
        Some(last.strip_suffix(".safetensors").unwrap_or(last).to_owned())
    }
}

impl ServeArgs {
    /// The models of the service, the default first.
    ///
    /// Of those that `--model` names, what belongs to one model - its VAE, UNet and configurations, its refiner, ControlNets,
    /// textual inversions and tiny autoencoder by file - counts for the first; folders, whose files are taken where they fit,
    /// and the enlarging network count for all.
    pub(crate) fn models(&self) -> Vec<ModelSetup> {
        let named = self.model.model.iter().enumerate().map(|(index, name)| {
            let whole = ModelArgs { model: vec![name.clone()], ..self.model.clone() };
            match index {
                0 => ModelSetup { name: None, args: whole, nets: self.nets.clone() },
                _ => ModelSetup { name: None, args: shared(whole), nets: ControlNetArgs::default() },
            }
        });
        named.chain(self.further.iter().cloned()).collect()
    }

    /// What requests call the default model.
    pub(crate) fn default_model(&self) -> &str {
        match self.further.first().filter(|_| self.model.model.is_empty()) {
            Some(first) => first.id(),
            None => self.model.name(),
        }
    }
}

/// Without what belongs to one model alone.
fn shared(args: ModelArgs) -> ModelArgs {
    let place = PlaceArgs { models_file: args.place.models_file, ..PlaceArgs::default() };
    ModelArgs { place, embedding: Vec::new(), preview_vae: None, refiner: None, ..args }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refiner_is_called_by_the_last_part_of_its_name() {
        for (given, name) in [
            ("sdxl-refiner", "sdxl-refiner"),
            ("stabilityai/xl-refiner-1.0", "xl-refiner-1.0"),
            ("/models/xl-refiner-1.0.safetensors", "xl-refiner-1.0"),
            ("./refiner/", "refiner"),
        ] {
            let setup = ModelSetup::parse_from(["--model=x".to_owned(), format!("--refiner={given}")]);
            assert_eq!(setup.refiner_name().as_deref(), Some(name));
        }
    }
}
