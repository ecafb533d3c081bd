//! Which layers of a model an adapter means.

use std::collections::{BTreeMap, HashMap};

use super::file::{Module, listed};
use super::names::flat;
use super::{Lora, Patch};
use crate::clip::ClipTextModel;
use crate::unet::{Unet2DConditionModel, ldm_name};
use crate::{Error, Result};

/// The layers of a model that adapters can change, by every name that files give them.
#[derive(Debug)]
pub struct Targets {
    by_name: HashMap<String, Target>,
}

#[derive(Debug, Clone)]
struct Target {
    part: Part,
    scope: String,
    shape: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Unet,
    /// Counted from 0.
    TextEncoder(usize),
}

/// What a set of adapters adds to each part of a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Patches {
    /// To the UNet.
    pub unet: Patch,
    /// To each text encoder.
    pub text: Vec<Patch>,
}

impl Targets {
    /// The layers of a UNet and of the one or two text encoders beside it.
    pub fn new<'a>(unet: &Unet2DConditionModel, text: impl IntoIterator<Item = &'a ClipTextModel>) -> Self {
        let mut targets = Self { by_name: HashMap::new() };
        for (scope, shape) in unet.layers().adaptable() {
            let mut names =
                vec![format!("unet.{scope}"), scope.clone(), format!("lora_unet_{}", flat(&scope))];
            names.extend(ldm_name(unet.config(), &scope).map(|name| format!("lora_unet_{}", flat(&name))));
            targets.insert(names, &Target { part: Part::Unet, scope, shape });
        }
        let encoders: Vec<BTreeMap<_, _>> =
            text.into_iter().map(|model| model.layers().adaptable()).collect();
        let alone = encoders.len() == 1;
        for (number, layers) in encoders.into_iter().enumerate() {
            for (scope, shape) in layers {
                let module = module_name(&scope);
                let mut names = match number {
                    0 => vec![
                        format!("text_encoder.{module}"),
                        format!("lora_te_{}", flat(&module)),
                        format!("lora_te1_{}", flat(&module)),
                    ],
                    _ => vec![
                        format!("text_encoder_{}.{module}", number + 1),
                        format!("lora_te{}_{}", number + 1, flat(&module)),
                    ],
                };
                names.extend(Some(module).filter(|_| alone));
                targets.insert(names, &Target { part: Part::TextEncoder(number), scope, shape });
            }
        }
        targets
    }

    fn insert(&mut self, names: Vec<String>, target: &Target) {
        self.by_name.extend(names.into_iter().map(|name| (name, target.clone())));
    }

    /// The layers by their names in diffusers, with the shapes of their weights.
    pub fn layers(&self) -> BTreeMap<String, Vec<usize>> {
        let name = |target: &Target| match target.part {
            Part::Unet => format!("unet.{}", target.scope),
            Part::TextEncoder(0) => format!("text_encoder.{}", module_name(&target.scope)),
            Part::TextEncoder(number) => {
                format!("text_encoder_{}.{}", number + 1, module_name(&target.scope))
            }
        };
        self.by_name.values().map(|target| (name(target), target.shape.clone())).collect()
    }

    /// Checks that an adapter fits this model: every layer that it names is there and has the right shape.
    ///
    /// # Errors
    /// [`Error::AdapterMismatch`] tells which layers do not fit and what kind of model would.
    pub fn fit(&self, lora: &Lora) -> Result<()> {
        self.modules(lora).map(drop)
    }

    /// What these adapters, each at its scale, add to the model.
    ///
    /// # Errors
    /// As [`Targets::fit`].
    pub fn patches<'a>(&self, loras: impl IntoIterator<Item = (&'a Lora, f64)>) -> Result<Patches> {
        let mut patches = Patches::default();
        for (lora, scale) in loras {
            for (index, target) in self.modules(lora)?.into_iter().enumerate() {
                let patch = match target.part {
                    Part::Unet => &mut patches.unet,
                    Part::TextEncoder(number) => {
                        if patches.text.len() <= number {
                            patches.text.resize_with(number + 1, Patch::default);
                        }
                        &mut patches.text[number]
                    }
                };
                patch.push(&target.scope, lora, index, scale);
            }
        }
        Ok(patches)
    }

    /// The layer of each module of the file.
    fn modules(&self, lora: &Lora) -> Result<Vec<&Target>> {
        let mismatch = |reason: String| Error::AdapterMismatch { file: lora.file().to_owned(), reason };
        let found: Vec<_> = lora.modules().iter().map(|module| self.by_name.get(&module.layer)).collect();
        let mut missing: Vec<&str> = lora
            .modules()
            .iter()
            .zip(&found)
            .filter(|(_, target)| target.is_none())
            .map(|(module, _)| module.layer.as_str())
            .collect();
        if !missing.is_empty() {
            let (count, all) = (missing.len(), lora.layers());
            let names = listed(&mut missing);
            let made_for = made_for(lora);
            return Err(mismatch(format!(
                "{count} of its {all} layers are not in this model: {names}. {made_for}"
            )));
        }
        let targets: Vec<&Target> = found.into_iter().flatten().collect();
        let mut named: HashMap<(Part, &str), &str> = HashMap::new();
        for (module, target) in lora.modules().iter().zip(&targets) {
            if let Some(other) = named.insert((target.part, &target.scope), &module.layer) {
                return Err(mismatch(format!("`{other}` and `{}` are the same layer of it", module.layer)));
            }
            if let Some((key, found, expected)) = misshapen(module, &target.shape) {
                let made_for = made_for(lora);
                return Err(mismatch(format!(
                    "`{key}` has shape {found:?}, expected {expected:?}. {made_for}"
                )));
            }
        }
        Ok(targets)
    }
}

/// The name of a text encoder's module. Some exporters leave the wrapping module's name away.
fn module_name(scope: &str) -> String {
    match scope.starts_with("encoder.") {
        true => format!("text_model.{scope}"),
        false => scope.to_owned(),
    }
}

/// The matrix that does not fit a layer's weight, with its shape and the right one.
fn misshapen<'a>(module: &'a Module, weight: &[usize]) -> Option<(&'a str, &'a [usize], Vec<usize>)> {
    let (outputs, row) = weight.split_first()?;
    if without_ones(&module.row_shape()) != without_ones(row) {
        let mut expected = vec![module.down.shape[0]];
        expected.extend(row);
        return Some((&module.down.key, &module.down.shape, expected));
    }
    let wrong = module.up.shape[0] != *outputs;
    wrong.then(|| (module.up.key.as_str(), &module.up.shape[..], vec![*outputs, module.rank()]))
}

/// A 1x1 convolution is a linear layer, however it is written.
fn without_ones(row: &[usize]) -> &[usize] {
    match row {
        [inputs @ .., 1, 1] if !inputs.is_empty() => inputs,
        row => row,
    }
}

/// What kind of model an adapter looks made for, as a sentence.
fn made_for(lora: &Lora) -> &'static str {
    let any = |part: &str| lora.modules().iter().any(|module| module.layer.contains(part));
    if [
        "double_blocks",
        "single_transformer_blocks",
        "joint_blocks",
        "lora_transformer",
        "transformer.transformer",
    ]
    .iter()
    .any(|part| any(part))
    {
        return "It was made for a transformer such as FLUX or SD 3.";
    }
    // Keys of the cross-attention are made from text states: their width tells the family.
    let text =
        |module: &&Module| module.layer.ends_with("attn2.to_k") || module.layer.ends_with("attn2_to_k");
    match lora.modules().iter().find(text).map(|module| module.down.shape[1]) {
        Some(768) => "It was made for Stable Diffusion 1.",
        Some(1024) => "It was made for Stable Diffusion 2.",
        Some(2048) => "It was made for SDXL.",
        _ if any("lora_te2_") || any("text_encoder_2.") || any("input_blocks") => "It was made for SDXL.",
        _ => "It was made for another model.",
    }
}
