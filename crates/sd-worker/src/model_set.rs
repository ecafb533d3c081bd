//! Which models a service has, each with what belongs to it.

use clap::Parser;
use clap::builder::NonEmptyStringValueParser;
use sd_engine::PartNames;

use crate::args::{ModelArgs, PlaceArgs, ServeArgs};
use crate::control::ControlNetArgs;
use crate::part_names;

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

    /// What that is called which is loaded beside it.
    pub(crate) fn part_names(&self) -> PartNames {
        part_names::of(&self.args)
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
