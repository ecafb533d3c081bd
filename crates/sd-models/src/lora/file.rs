//! One adapter file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device};

use super::names::{Role, other_form, parse};
use super::scaling::Settings;
use crate::files::FileBytes;
use crate::tensor_index::{TensorFile, TensorIndex};
use crate::weights::Stored;
use crate::{Error, Result, Weights};

/// Where diffusers keeps PEFT's configuration in a file's header.
const SETTINGS_KEY: &str = "lora_adapter_metadata";
/// The same beside a file of PEFT's own.
const SETTINGS_FILE: &str = "adapter_config.json";
/// How many names an error message tells.
const NAMES_TOLD: usize = 3;

/// An adapter file, mapped and checked in itself. Clones share it, and are equal only to each other.
#[derive(Clone)]
pub struct Lora(Arc<Opened>);

struct Opened {
    name: String,
    file: String,
    weights: Weights,
    modules: Vec<Module>,
}

/// What the file holds for one layer.
pub(super) struct Module {
    /// The layer, as the file calls it.
    pub(super) layer: String,
    /// `(rank, inputs)`, with a kernel's height and width for convolutions.
    pub(super) down: Named,
    /// `(outputs, rank)`.
    pub(super) up: Named,
    /// `(rank, rank, height, width)`: then `down` is 1x1.
    mid: Option<Named>,
    /// What `up * down` is multiplied by: alpha / rank.
    pub(super) factor: f64,
}

/// A tensor of the file.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) key: String,
    pub(super) shape: Vec<usize>,
}

/// The tensors of one layer as they are found.
#[derive(Default)]
struct Pieces {
    down: Option<Named>,
    up: Option<Named>,
    mid: Option<Named>,
    alpha: Option<Named>,
}

impl Lora {
    /// Opens the safetensors file at `path`.
    ///
    /// # Errors
    /// [`Error::BadFile`] for a pickle, a cut file or one with tensors that belong to no adapter;
    /// [`Error::UnsupportedAdapter`] for LoHa, LoKr, DoRA and other forms; [`Error::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = path.display().to_string();
        let bad = |reason: &str| Error::BadFile { file: file.clone(), reason: reason.into() };
        if path.is_dir() {
            return Err(bad("it is a folder; a .safetensors file is expected"));
        }
        if let Some("ckpt" | "pt" | "pth" | "bin") = path.extension().and_then(|extension| extension.to_str())
        {
            return Err(bad("it is a pickle, which can run code; convert it to safetensors first"));
        }
        let beside = std::fs::read_to_string(path.with_file_name(SETTINGS_FILE)).ok();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self::read(name, file, FileBytes::map(path)?, beside.as_deref())
    }

    fn read(name: String, file: String, bytes: FileBytes, beside: Option<&str>) -> Result<Self> {
        let index = TensorIndex::read(vec![TensorFile { name: file.clone(), bytes }])?;
        let pieces = sorted(&file, &index)?;
        let from_peft = index.iter().any(|(key, _)| key.starts_with("base_model.model."));
        let settings = index.metadata(SETTINGS_KEY).or(beside.filter(|_| from_peft));
        let settings = settings.and_then(Settings::from_json).unwrap_or_default();
        let weights = Weights::from_index(Arc::new(index), &Device::Cpu, DType::F32);
        let modules = pieces
            .into_iter()
            .map(|(layer, pieces)| pieces.into_module(layer, &file, &weights, &settings))
            .collect::<Result<_>>()?;
        Ok(Self(Arc::new(Opened { name, file, weights, modules })))
    }

    /// The file's name without its ending.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The file, as error messages call it.
    pub fn file(&self) -> &str {
        &self.0.file
    }

    /// How many layers it changes.
    pub fn layers(&self) -> usize {
        self.0.modules.len()
    }

    pub(super) fn modules(&self) -> &[Module] {
        &self.0.modules
    }

    /// `down` of a module as `(rank, values of a weight's row)` and `up` as `(outputs, rank)`.
    pub(super) fn factors(&self, module: &Module) -> Result<(Vec<f32>, Vec<f32>)> {
        let read = |tensor: &Named| self.0.weights.stored(&tensor.key, &tensor.shape).map(Stored::into_f32);
        let (down, up) = (read(&module.down)?, read(&module.up)?);
        let Some(mid) = &module.mid else { return Ok((down, up)) };
        // The kernel first, then the inputs: row p of the product is sum over q of mid[p, q] times down[q].
        let (inner, rank, kernel) = (mid.shape[0], mid.shape[1], mid.shape[2] * mid.shape[3]);
        let (mid, inputs) = (read(mid)?, module.down.shape[1]);
        let mut product = vec![0f32; inner * inputs * kernel];
        for (p, row) in product.chunks_exact_mut((inputs * kernel).max(1)).enumerate() {
            for q in 0..rank {
                let taps = &mid[(p * rank + q) * kernel..][..kernel];
                for (pixel, weight) in row.chunks_exact_mut(kernel).zip(&down[q * inputs..]) {
                    pixel.iter_mut().zip(taps).for_each(|(sum, tap)| *sum += tap * weight);
                }
            }
        }
        Ok((product, up))
    }
}

impl PartialEq for Lora {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::fmt::Debug for Lora {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lora").field("file", &self.0.file).field("layers", &self.layers()).finish()
    }
}

impl Module {
    /// The shape of `up * down` beyond the outputs: inputs, and a kernel's height and width.
    pub(super) fn row_shape(&self) -> Vec<usize> {
        match &self.mid {
            Some(mid) => vec![self.down.shape[1], mid.shape[2], mid.shape[3]],
            None => self.down.shape[1..].to_vec(),
        }
    }

    /// Columns of `up`.
    pub(super) fn rank(&self) -> usize {
        self.up.shape[1]
    }
}

/// The tensors of a file by the layers that they are about.
fn sorted(file: &str, index: &TensorIndex) -> Result<BTreeMap<String, Pieces>> {
    let bad = |reason: String| Error::BadFile { file: file.to_owned(), reason };
    let mut pieces: BTreeMap<String, Pieces> = BTreeMap::new();
    let mut unknown = Vec::new();
    for (key, location) in index.iter() {
        if let Some(form) = other_form(key) {
            return Err(Error::UnsupportedAdapter { file: file.to_owned(), key: key.to_owned(), form });
        }
        let Some((layer, role)) = parse(key) else {
            unknown.push(key);
            continue;
        };
        let pieces = pieces.entry(layer).or_default();
        let place = match role {
            Role::Down => &mut pieces.down,
            Role::Up => &mut pieces.up,
            Role::Mid => &mut pieces.mid,
            Role::Alpha => &mut pieces.alpha,
        };
        if let Some(first) = place.replace(Named { key: key.to_owned(), shape: location.shape.clone() }) {
            return Err(bad(format!("`{}` and `{key}` are two names of one tensor", first.key)));
        }
    }
    if !unknown.is_empty() {
        return Err(bad(format!("{} belong to no LoRA", listed(&mut unknown))));
    }
    if pieces.is_empty() {
        return Err(bad("it holds no tensors".into()));
    }
    Ok(pieces)
}

/// The first names of a list in their order, and how many more there are.
pub(super) fn listed(names: &mut [&str]) -> String {
    names.sort_unstable();
    let told = names.iter().take(NAMES_TOLD).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_TOLD) {
        0 => told,
        more => format!("{told} and {more} more"),
    }
}

impl Pieces {
    fn into_module(
        self,
        layer: String,
        file: &str,
        weights: &Weights,
        settings: &Settings,
    ) -> Result<Module> {
        let bad = |reason: String| Error::BadFile { file: file.to_owned(), reason };
        let Self { down, up, mid, alpha } = self;
        let (Some(down), Some(up)) = (down, up) else {
            return Err(bad(format!("`{layer}` is not whole: it needs one matrix down and one up")));
        };
        for tensor in [Some(&down), Some(&up), mid.as_ref()].into_iter().flatten() {
            if tensor.shape.len() < 2 || tensor.shape.contains(&0) {
                return Err(bad(format!(
                    "`{}` has shape {:?}, which is no matrix",
                    tensor.key, tensor.shape
                )));
            }
        }
        let wrong = |tensor: &Named, expected: Vec<usize>| Error::WrongShape {
            file: file.to_owned(),
            key: tensor.key.clone(),
            expected,
            found: tensor.shape.clone(),
        };
        let mut rank = down.shape[0];
        if let Some(mid) = &mid {
            let pointwise = down.shape[2..].iter().all(|side| *side == 1);
            if mid.shape.len() != 4 || mid.shape[1] != rank || !pointwise {
                return Err(wrong(mid, vec![up.shape[1], rank, 3, 3]));
            }
            rank = mid.shape[0];
        }
        if up.shape[1] != rank || up.shape[2..].iter().any(|side| *side != 1) {
            return Err(wrong(&up, vec![up.shape[0], rank]));
        }
        let factor = match alpha {
            Some(alpha) => {
                if alpha.shape.iter().any(|side| *side != 1) {
                    return Err(wrong(&alpha, Vec::new()));
                }
                let values = weights.stored(&alpha.key, &alpha.shape)?.into_f32();
                f64::from(values.first().copied().unwrap_or(1.0)) / rank as f64
            }
            None => settings.factor(&layer, rank).unwrap_or(1.0),
        };
        if !factor.is_finite() {
            return Err(bad(format!("the alpha of `{layer}` is not a finite number")));
        }
        Ok(Module { layer, down, up, mid, factor })
    }
}
