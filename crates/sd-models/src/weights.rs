//! Named tensors of one model part: mapped safetensors files, or random numbers of the right shapes.
//!
//! A [`Weights`] is a scope (`unet`, then `unet.down_blocks.0`, ...) in such a set. Layers ask it for tensors by
//! name and shape; a missing or misshapen one is an error that names file, key, expected and found shape.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use safetensors::Dtype;
use serde::Deserialize;

use crate::assembled::PartSource;
use crate::files::{FileBytes, ModelFiles};
use crate::layers::{FileStamp, Layers};
use crate::lora;
use crate::tensor_index::{TensorFile, TensorIndex};
use crate::{Error, Result};

/// A scope in the named tensors of one model part, with the device and dtype that its tensors are wanted in.
#[derive(Clone)]
pub struct Weights {
    source: Arc<Source>,
    prefix: String,
    device: Device,
    dtype: DType,
    layers: Arc<Layers>,
}

enum Source {
    Files(Arc<TensorIndex>),
    Random { seed: u64 },
}

/// The index file of a sharded checkpoint: tensor name to shard file.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: HashMap<String, String>,
}

impl Weights {
    /// Opens the weights in `folder` (such as `unet`) whose files are called `stem`
    /// (`diffusion_pytorch_model` or `model`).
    ///
    /// Looks for `stem.safetensors`, its sharded form `stem.safetensors.index.json`, and both with the variant
    /// `fp16`; the one without a variant wins.
    ///
    /// # Errors
    /// [`Error::NotAModel`] when none is there, [`Error::BadFile`] when one is cut or has a bad header.
    pub fn open(files: &ModelFiles, folder: &str, stem: &str, device: &Device, dtype: DType) -> Result<Self> {
        if let ModelFiles::Assembled(assembled) = files {
            return match assembled.part(folder)? {
                PartSource::Tensors(index) => Ok(Self::from_index(index, device, dtype)),
                PartSource::Files { files, folder } => Self::open(&files, &folder, stem, device, dtype),
            };
        }
        let mut names: Vec<String> = Vec::new();
        for candidate in [
            format!("{folder}/{stem}.safetensors"),
            format!("{folder}/{stem}.safetensors.index.json"),
            format!("{folder}/{stem}.fp16.safetensors"),
            format!("{folder}/{stem}.safetensors.index.fp16.json"),
            format!("{folder}/{stem}.fp16.safetensors.index.json"),
        ] {
            if !files.contains(&candidate) {
                continue;
            }
            if candidate.ends_with(".json") {
                let index: ShardIndex = files.json(&candidate)?;
                let mut shards: Vec<_> = index.weight_map.into_values().collect();
                shards.sort();
                shards.dedup();
                if let Some(bad) = shards.iter().find(|s| s.contains(['/', '\\'])) {
                    return Err(Error::BadFile {
                        file: files.describe(&candidate),
                        reason: format!("shard name `{bad}` leaves the folder"),
                    });
                }
                names = shards.into_iter().map(|shard| format!("{folder}/{shard}")).collect();
            } else {
                names = vec![candidate];
            }
            break;
        }
        if names.is_empty() {
            let pickle =
                ["bin", "ckpt", "pt"].iter().any(|ext| files.contains(&format!("{folder}/{stem}.{ext}")));
            return Err(Error::NotAModel {
                path: files.describe(folder),
                reason: if pickle {
                    format!("{stem} is there only as a pickle, which can run code; convert it to safetensors")
                } else {
                    format!("no {stem}.safetensors (nor a sharded or fp16 one)")
                },
            });
        }
        let (mut opened, mut stamps) = (Vec::new(), Vec::new());
        for name in names {
            let file = TensorFile { bytes: files.bytes(&name)?, name: files.describe(&name) };
            stamps.push(FileStamp {
                name: file.name.clone(),
                bytes: file.bytes.as_slice().len(),
                modified: files.modified(&name),
            });
            opened.push(file);
        }
        let weights = Self::from_index(Arc::new(TensorIndex::read(opened)?), device, dtype);
        Ok(Self { layers: Arc::new(Layers::of_files(stamps)), ..weights })
    }

    /// Opens a single safetensors file on disk.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::BadFile`] when it is cut or has a bad header.
    pub(crate) fn open_file(path: &Path, device: &Device, dtype: DType) -> Result<Self> {
        let file = TensorFile { bytes: FileBytes::map(path)?, name: path.display().to_string() };
        Ok(Self::from_index(Arc::new(TensorIndex::read(vec![file])?), device, dtype))
    }

    pub(crate) fn from_index(index: Arc<TensorIndex>, device: &Device, dtype: DType) -> Self {
        let source = Arc::new(Source::Files(index));
        Self { source, prefix: String::new(), device: device.clone(), dtype, layers: Arc::default() }
    }

    /// Random weights of whatever shapes the layers ask for, for measuring speed and memory without a download.
    ///
    /// Matrices are scaled by their fan-in, norms are the identity, biases zero: activations stay near unit size.
    pub fn random(seed: u64, device: &Device, dtype: DType) -> Self {
        Self {
            source: Arc::new(Source::Random { seed }),
            prefix: String::new(),
            device: device.clone(),
            dtype,
            layers: Arc::default(),
        }
    }

    /// The same weights, giving out `layers` instead of loading them again, with what was added to those.
    ///
    /// # Errors
    /// [`Error::BadFile`] when the files are no longer those that the layers were loaded from.
    pub fn with_layers(self, layers: Layers) -> Result<Self> {
        layers.check_files(self.layers.files())?;
        Ok(Self { layers: Arc::new(layers), ..self })
    }

    /// The same weights, remembering the layers that are loaded from them: for models that can be adapted.
    pub(crate) fn recording(&self) -> Self {
        Self { layers: Arc::new(self.layers.recording()), ..self.clone() }
    }

    /// The layers that it gives out, in all scopes, and those that it remembers.
    pub(crate) fn layers(&self) -> &Arc<Layers> {
        &self.layers
    }

    /// The layer of this very scope: the one that is there already, or what `load` gives. `weight` is the shape of its
    /// weight, where adapters may change it.
    pub(crate) fn layer<L: Clone + Send + Sync + 'static>(
        &self,
        weight: Option<&[usize]>,
        load: impl FnOnce() -> Result<L>,
    ) -> Result<L> {
        self.layers.layer(&self.prefix, weight, load)
    }

    /// The scope `name` inside this one.
    pub fn child(&self, name: impl std::fmt::Display) -> Self {
        let prefix =
            if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) };
        Self { prefix, ..self.clone() }
    }

    /// The same scope with tensors cast to `dtype`.
    pub fn with_dtype(&self, dtype: DType) -> Self {
        Self { dtype, ..self.clone() }
    }

    /// The device that tensors are placed on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The dtype that tensors are cast to.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Whether a tensor `name` exists in this scope. Random weights hold every name of the current layout.
    pub fn contains(&self, name: &str) -> bool {
        match &*self.source {
            Source::Files(index) => index.get(&self.key(name)).is_some(),
            Source::Random { .. } => true,
        }
    }

    /// The shape of the tensor `name` in the files of this scope; `None` where there is none.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        match &*self.source {
            Source::Files(index) => index.shape(&self.key(name)),
            Source::Random { .. } => None,
        }
    }

    /// The tensor `name` with exactly this shape, on this scope's device and in its dtype.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::WrongShape`], [`Error::UnsupportedDtype`], or a device error.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let tensor = match self.stored(name, shape)? {
            Stored::F16(bytes) => Tensor::from_vec(read_f16(&bytes), shape, &Device::Cpu)?,
            Stored::Bf16(bytes) => Tensor::from_vec(read_bf16(&bytes), shape, &Device::Cpu)?,
            Stored::F32(bytes) => Tensor::from_vec(read_f32(&bytes), shape, &Device::Cpu)?,
            Stored::Values(values) => Tensor::from_vec(values, shape, &Device::Cpu)?,
        };
        Ok(tensor.to_device(&self.device)?.to_dtype(self.dtype)?)
    }

    fn key(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }

    /// The dtype of activations beside these weights: on the CPU f32 whatever the weights are.
    pub fn activation_dtype(&self) -> DType {
        if self.device.is_cpu() { DType::F32 } else { self.dtype }
    }

    /// Name and shape of every tensor in the files that a layer can read; nothing for random weights.
    pub(crate) fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        let readable = |dtype| matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16);
        self.index()
            .into_iter()
            .flat_map(TensorIndex::iter)
            .filter(move |(_, location)| readable(location.dtype))
            .map(|(key, location)| (key, location.shape.as_slice()))
    }

    /// Every tensor of the files, whatever its format and this scope; `None` for random weights.
    pub(crate) fn index(&self) -> Option<&TensorIndex> {
        match &*self.source {
            Source::Files(index) => Some(index),
            Source::Random { .. } => None,
        }
    }

    /// A tensor of this scope as it is stored, or, where an adapter changes it, as f32 with that added.
    pub(crate) fn stored(&self, name: &str, shape: &[usize]) -> Result<Stored<'_>> {
        let stored = self.unchanged(name, shape)?;
        let terms = Some(&self.prefix)
            .filter(|_| name == "weight")
            .and_then(|scope| self.layers.patch().terms(scope));
        let (Some(terms), Some(&rows)) = (terms, shape.first()) else { return Ok(stored) };
        Ok(Stored::Values(lora::added(terms, &stored.into_f32(), rows)?))
    }

    fn unchanged(&self, name: &str, shape: &[usize]) -> Result<Stored<'_>> {
        let key = self.key(name);
        let index = match &*self.source {
            Source::Files(index) => index,
            Source::Random { seed } => return Ok(Stored::Values(random_values(*seed, &key, shape))),
        };
        let Some(location) = index.get(&key) else {
            return Err(Error::MissingTensor { file: index.file_names(), key, expected: shape.to_vec() });
        };
        let file = || index.file_name(location).to_owned();
        if location.shape != shape {
            return Err(Error::WrongShape {
                file: file(),
                key,
                expected: shape.to_vec(),
                found: location.shape.clone(),
            });
        }
        match location.dtype {
            Dtype::F32 => Ok(Stored::F32(index.bytes(location))),
            Dtype::F16 => Ok(Stored::F16(index.bytes(location))),
            Dtype::BF16 => Ok(Stored::Bf16(index.bytes(location))),
            other => Err(Error::UnsupportedDtype { file: file(), key, found: format!("{other:?}") }),
        }
    }
}

/// The little-endian bytes of one stored tensor, or numbers made on the spot.
pub(crate) enum Stored<'a> {
    F32(Cow<'a, [u8]>),
    F16(Cow<'a, [u8]>),
    Bf16(Cow<'a, [u8]>),
    Values(Vec<f32>),
}

impl Stored<'_> {
    /// As the CPU kernels read it when they pack it.
    pub(crate) fn as_packable(&self) -> sd_kernels::Weights<'_> {
        match self {
            Self::F32(bytes) => sd_kernels::Weights::f32_bytes(bytes),
            Self::F16(bytes) => sd_kernels::Weights::f16_bytes(bytes),
            Self::Bf16(bytes) => sd_kernels::Weights::bf16_bytes(bytes),
            Self::Values(values) => values.as_slice().into(),
        }
    }

    /// The values.
    pub(crate) fn into_f32(self) -> Vec<f32> {
        match self {
            Self::F32(bytes) => read_f32(&bytes),
            Self::F16(bytes) => read_f16(&bytes).into_par_iter().map(half::f16::to_f32).collect(),
            Self::Bf16(bytes) => read_bf16(&bytes).into_par_iter().map(half::bf16::to_f32).collect(),
            Self::Values(values) => values,
        }
    }
}

fn read_f32(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.par_iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn read_f16(bytes: &[u8]) -> Vec<half::f16> {
    bytes.as_chunks::<2>().0.par_iter().map(|b| half::f16::from_le_bytes(*b)).collect()
}

fn read_bf16(bytes: &[u8]) -> Vec<half::bf16> {
    bytes.as_chunks::<2>().0.par_iter().map(|b| half::bf16::from_le_bytes(*b)).collect()
}

/// Numbers that depend only on seed, name and position, so that every run and thread count makes the same model.
fn random_values(seed: u64, key: &str, shape: &[usize]) -> Vec<f32> {
    let count: usize = shape.iter().product();
    if shape.len() < 2 {
        let value = if key.ends_with("weight") { 1.0 } else { 0.0 };
        return vec![value; count];
    }
    let fan_in: usize = shape[1..].iter().product();
    // A uniform distribution on [-a, a] has the standard deviation a / sqrt(3).
    let bound = (3.0 / fan_in as f32).sqrt();
    let name = key.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mut values = vec![0f32; count];
    values.par_chunks_mut(1 << 16).enumerate().for_each(|(chunk, values)| {
        let mut state = name.wrapping_add((chunk as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for value in values {
            // SplitMix64 (Steele, Lea and Flood, 2014).
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            let unit = (z >> 40) as f32 / (1u64 << 24) as f32;
            *value = (2.0 * unit - 1.0) * bound;
        }
    });
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_weights_are_repeatable_and_differ_by_name() {
        let a = random_values(1, "a.weight", &[8, 8]);
        assert_eq!(a, random_values(1, "a.weight", &[8, 8]));
        assert_ne!(a, random_values(1, "b.weight", &[8, 8]));
        assert_ne!(a, random_values(2, "a.weight", &[8, 8]));
        let variance = random_values(1, "c.weight", &[512, 512]).iter().map(|v| v * v).sum::<f32>() / 512.0;
        assert!((variance - 1.0).abs() < 0.05, "fan-in scaling is off: {variance}");
    }

    fn save(folder: &Path, bytes: &[u8]) -> Result<Weights> {
        std::fs::create_dir_all(folder.join("unet")).unwrap();
        std::fs::write(folder.join("model_index.json"), "{}").unwrap();
        std::fs::write(folder.join("unet/diffusion_pytorch_model.safetensors"), bytes).unwrap();
        let files = ModelFiles::folder(folder)?;
        Weights::open(&files, "unet", "diffusion_pytorch_model", &Device::Cpu, DType::F32)
    }

    fn one_tensor() -> Vec<u8> {
        let data: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![2, 2], &data).unwrap();
        safetensors::serialize([("block.weight", view)], None).unwrap()
    }

    #[test]
    fn tensors_are_found_by_scope_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let weights = save(folder.path(), &one_tensor()).unwrap().child("block");
        let tensor = weights.tensor("weight", &[2, 2]).unwrap();
        assert_eq!(tensor.to_vec2::<f32>().unwrap(), [[1.0, 2.0], [3.0, 4.0]]);

        let error = weights.tensor("weight", &[4, 1]).unwrap_err().to_string();
        assert!(
            error.contains("block.weight") && error.contains("[2, 2]") && error.contains("[4, 1]"),
            "{error}"
        );
        let error = weights.tensor("bias", &[2]).unwrap_err().to_string();
        assert!(error.contains("block.bias") && error.contains("diffusion_pytorch_model"), "{error}");
    }

    #[test]
    fn cut_files_are_refused_by_name_at_every_length() {
        let whole = one_tensor();
        for length in 0..whole.len() {
            let folder = tempfile::tempdir().unwrap();
            let error =
                save(folder.path(), &whole[..length]).err().expect("a cut file was accepted").to_string();
            assert!(error.contains("diffusion_pytorch_model.safetensors"), "{error}");
        }
    }
}
