//! Any model as a folder in the diffusers layout, in the number format that is wanted.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device};
use safetensors::Dtype;
use safetensors::tensor::View;

use crate::assembled::PARTS;
use crate::single_file::Family;
use crate::tensor_index::{Location, TensorIndex};
use crate::{Error, ModelFiles, Result, Weights};

/// What a tokenizer's folder may hold.
const TOKENIZER: [&str; 5] =
    ["vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"];

/// Writes `files` as the folder `to`, which must not exist or be empty. Weights become `dtype`; `None` leaves each as
/// it is, to the bit. `on_part` is told each part before it is written. Memory for no more than one tensor is taken.
///
/// The folder appears under its name only when it is complete.
///
/// # Errors
/// [`Error::Io`] when it exists or cannot be written; [`Error::BadFile`] when a number is too large for `f16`;
/// [`Error::NotAModel`] when the model lacks a part or its tokenizer.
pub fn folder(
    files: &ModelFiles,
    to: &Path,
    dtype: Option<DType>,
    on_part: &mut dyn FnMut(&str),
) -> Result<()> {
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::Io { path, source }
    };
    if to.exists() && fs::read_dir(to).map_err(io(to))?.next().is_some() {
        let taken = std::io::Error::new(std::io::ErrorKind::AlreadyExists, "it exists and is not empty");
        return Err(io(to)(taken));
    }
    let parent = match to.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(io(parent))?;
    let name = to.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let unfinished = parent.join(format!(".{name}.{}.part", std::process::id()));
    let written = write(files, &unfinished, dtype, on_part).and_then(|()| {
        if to.exists() {
            fs::remove_dir(to).map_err(io(to))?;
        }
        fs::rename(&unfinished, to).map_err(io(to))
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_dir_all(&unfinished);
    }
    written
}

fn write(files: &ModelFiles, to: &Path, dtype: Option<DType>, on_part: &mut dyn FnMut(&str)) -> Result<()> {
    let encoders = PARTS.iter().filter(|part| part.starts_with("text"));
    let mut texts: Vec<String> = Family::FILES.map(str::to_owned).to_vec();
    texts.push("sd-worker.json".into());
    for encoder in encoders.filter(|encoder| files.contains(&format!("{encoder}/config.json"))) {
        let tokenizer = encoder.replace("text_encoder", "tokenizer");
        if !files.contains(&format!("{tokenizer}/tokenizer.json")) {
            // Says what to do when there is none.
            files.bytes(&format!("{tokenizer}/vocab.json"))?;
        }
        texts.extend(TOKENIZER.map(|file| format!("{tokenizer}/{file}")));
    }
    for relative in texts.iter().filter(|relative| files.contains(relative)) {
        let path = to.join(relative);
        let bytes = files.bytes(relative)?;
        let io = |source| Error::Io { path: path.clone(), source };
        fs::create_dir_all(path.parent().unwrap_or(to)).map_err(io)?;
        fs::write(&path, bytes.as_slice()).map_err(io)?;
    }
    for part in PARTS.iter().filter(|part| files.contains(&format!("{part}/config.json"))) {
        on_part(part);
        let stem = if part.starts_with("text") { "model" } else { "diffusion_pytorch_model" };
        let weights = Weights::open(files, part, stem, &Device::Cpu, DType::F32)?;
        let Some(index) = weights.index() else { continue };
        let path = to.join(part).join(format!("{stem}.safetensors"));
        tensors(index, &path, dtype)?;
        // The file was made under a temporary name that only its owner may read.
        let config = to.join(part).join("config.json");
        let io = |source| Error::Io { path: path.clone(), source };
        let usual = fs::metadata(&config).map_err(io)?.permissions();
        fs::set_permissions(&path, usual).map_err(io)?;
    }
    Ok(())
}

fn tensors(index: &TensorIndex, path: &Path, dtype: Option<DType>) -> Result<()> {
    let overflow: RefCell<Overflow<'_>> = RefCell::default();
    let views = index.iter().map(|(name, location)| {
        (name, Converted { index, name, location, dtype: target(location.dtype, dtype), overflow: &overflow })
    });
    // transformers reads only files that say whose they are.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), path)
        .map_err(|error| Error::Io { path: path.to_path_buf(), source: std::io::Error::other(error) })?;
    match overflow.take() {
        Some((name, location, value)) => Err(Error::BadFile {
            file: index.file_name(location).to_owned(),
            reason: format!("tensor `{name}` holds {value}, but f16 ends at 65504; bf16 holds it"),
        }),
        None => Ok(()),
    }
}

/// The format to write: only numbers with fractions are converted.
fn target(stored: Dtype, wanted: Option<DType>) -> Dtype {
    match (stored, wanted) {
        (Dtype::F32 | Dtype::F16 | Dtype::BF16, Some(DType::F32)) => Dtype::F32,
        (Dtype::F32 | Dtype::F16 | Dtype::BF16, Some(DType::F16)) => Dtype::F16,
        (Dtype::F32 | Dtype::F16 | Dtype::BF16, Some(DType::BF16)) => Dtype::BF16,
        (stored, _) => stored,
    }
}

/// The first number that a format does not hold: its tensor, where that is, and the number.
type Overflow<'a> = Option<(&'a str, &'a Location, f32)>;

/// A tensor on its way into a file.
struct Converted<'a> {
    index: &'a TensorIndex,
    name: &'a str,
    location: &'a Location,
    dtype: Dtype,
    overflow: &'a RefCell<Overflow<'a>>,
}

impl View for Converted<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.location.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes = self.index.bytes(self.location);
        if self.dtype == self.location.dtype {
            return bytes;
        }
        let values: Vec<f32> = match self.location.dtype {
            Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::F16 => {
                bytes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()
            }
            _ => bytes.as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
        };
        Cow::Owned(match self.dtype {
            Dtype::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Dtype::F16 => {
                let half = |value: &f32| {
                    let half = half::f16::from_f32(*value);
                    if half.is_infinite() && value.is_finite() {
                        self.overflow.borrow_mut().get_or_insert((self.name, self.location, *value));
                    }
                    half.to_le_bytes()
                };
                values.iter().flat_map(half).collect()
            }
            _ => values.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect(),
        })
    }

    fn data_len(&self) -> usize {
        let values = self.location.shape.iter().product::<usize>();
        match self.dtype == self.location.dtype {
            true => self.location.len(),
            false => values * self.dtype.bitsize() / 8,
        }
    }
}
