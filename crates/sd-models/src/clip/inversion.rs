//! Textual inversions (Gal et al., 2022): files of learned vectors that stand in for tokens.
//!
//! Three forms are read, all safetensors: `emb_params` (AUTOMATIC1111's web UI and kohya's trainers), one tensor under
//! the token's own name (diffusers), and `clip_l` beside `clip_g` for models with two encoders.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors};

use crate::{Error, Result};

/// The largest file that is read, in bytes: hundreds of times what an ordinary one has.
const MAX_BYTES: u64 = 64 << 20;
/// The key for models with one encoder.
const SINGLE: &str = "emb_params";
/// The keys for models with two, in the order of their encoders.
const PAIR: [&str; 2] = ["clip_l", "clip_g"];

/// The vectors of one file.
#[derive(Debug, Clone)]
pub struct TextualInversion {
    file: String,
    tensors: Vec<Vectors>,
}

#[derive(Debug, Clone)]
struct Vectors {
    key: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl TextualInversion {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::BadFile`] when it is a pickle, too large, cut, holds no tensor or
    /// values that are not finite, [`Error::UnsupportedDtype`] for tensors that are not F32, F16 or BF16.
    pub fn read(path: &Path) -> Result<Self> {
        let file = path.display().to_string();
        let bad = |reason: String| Error::BadFile { file: file.clone(), reason };
        let io = |source| Error::Io { path: path.to_path_buf(), source };
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        if matches!(extension.as_deref(), Some("pt" | "bin" | "pth" | "ckpt")) {
            return Err(bad(
                "it is a pickle, which can run code; load it where that is no danger and save its vectors as \
                 safetensors under the key `emb_params`"
                    .into(),
            ));
        }
        let size = std::fs::metadata(path).map_err(io)?.len();
        if size > MAX_BYTES {
            return Err(bad(format!(
                "has {size} bytes; at most {MAX_BYTES} are read as a textual inversion"
            )));
        }
        let bytes = std::fs::read(path).map_err(io)?;
        let stored = SafeTensors::deserialize(&bytes)
            .map_err(|error| bad(format!("not a readable safetensors file: {error}")))?;
        let mut tensors = Vec::new();
        for (key, view) in stored.iter() {
            let data = view.data();
            let values = match view.dtype() {
                Dtype::F32 => data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
                Dtype::F16 => halves(data).map(|bits| half::f16::from_bits(bits).to_f32()).collect(),
                Dtype::BF16 => halves(data).map(|bits| half::bf16::from_bits(bits).to_f32()).collect(),
                // Steps and the like stand beside the vectors in some files.
                _ if key != SINGLE && !PAIR.contains(&key) && stored.len() > 1 => continue,
                other => {
                    let found = format!("{other:?}");
                    return Err(Error::UnsupportedDtype { file, key: key.to_owned(), found });
                }
            };
            let vectors = Vectors { key: key.to_owned(), shape: view.shape().to_vec(), values };
            if vectors.values.iter().any(|value| !value.is_finite()) {
                return Err(bad(format!("tensor `{key}` holds values that are not finite")));
            }
            tensors.push(vectors);
        }
        if tensors.is_empty() {
            return Err(bad("it holds no tensor".into()));
        }
        Ok(Self { file, tensors })
    }

    /// The token that the file names, as diffusers writes it.
    pub fn token(&self) -> Option<&str> {
        match self.tensors.as_slice() {
            [only] if only.key != SINGLE && !PAIR.contains(&only.key.as_str()) => Some(&only.key),
            _ => None,
        }
    }

    /// The vectors for encoders of these widths, each `(vectors, width)`, as many for one encoder as for the other.
    ///
    /// # Errors
    /// [`Error::BadFile`] when it was made for another number of encoders, [`Error::MissingTensor`] and
    /// [`Error::WrongShape`] when a tensor is not there or not of this width; device errors.
    pub fn vectors(&self, widths: &[usize], device: &Device, dtype: DType) -> Result<Vec<Tensor>> {
        let keys: Vec<&str> = match (widths.len(), self.token()) {
            (1, Some(token)) => vec![token],
            (1, None) if self.find(SINGLE).is_none() && self.find(PAIR[0]).is_some() => {
                return Err(Error::BadFile {
                    file: self.file.clone(),
                    reason:
                        "it holds `clip_l` and was made for models with two text encoders; this one has one"
                            .into(),
                });
            }
            (1, None) => vec![SINGLE],
            _ => PAIR.to_vec(),
        };
        let mut count = None;
        let mut found = Vec::new();
        for (key, &width) in keys.into_iter().zip(widths) {
            let vectors = self.find(key).ok_or_else(|| Error::MissingTensor {
                file: self.file.clone(),
                key: key.to_owned(),
                expected: vec![count.unwrap_or(1), width],
            })?;
            let rows = match *vectors.shape {
                [last] if last == width => 1,
                [rows, last] if last == width && rows > 0 => rows,
                [rows, _] if rows > 0 => {
                    return Err(self.wrong_shape(vectors, vec![count.unwrap_or(rows), width]));
                }
                _ => return Err(self.wrong_shape(vectors, vec![count.unwrap_or(1), width])),
            };
            if *count.get_or_insert(rows) != rows {
                return Err(self.wrong_shape(vectors, vec![count.unwrap_or(rows), width]));
            }
            let tensor = Tensor::from_vec(vectors.values.clone(), (rows, width), &Device::Cpu)?;
            found.push(tensor.to_dtype(dtype)?.to_device(device)?);
        }
        Ok(found)
    }

    fn find(&self, key: &str) -> Option<&Vectors> {
        self.tensors.iter().find(|vectors| vectors.key == key)
    }

    fn wrong_shape(&self, vectors: &Vectors, expected: Vec<usize>) -> Error {
        let (key, found) = (vectors.key.clone(), vectors.shape.clone());
        Error::WrongShape { file: self.file.clone(), key, expected, found }
    }
}

/// The little-endian words of `data`.
fn halves(data: &[u8]) -> impl Iterator<Item = u16> {
    data.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;

    fn save(name: &str, tensors: &[(&str, &[usize], f32)]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let data: Vec<Vec<u8>> = tensors
            .iter()
            .map(|(_, shape, value)| value.to_le_bytes().repeat(shape.iter().product()))
            .collect();
        let views = tensors.iter().zip(&data).map(|((key, shape, _), data)| {
            (*key, TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap())
        });
        std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        (folder, path)
    }

    fn vectors(path: &Path, widths: &[usize]) -> Result<Vec<Vec<usize>>> {
        let found = TextualInversion::read(path)?.vectors(widths, &Device::Cpu, DType::F32)?;
        Ok(found.iter().map(|tensor| tensor.dims().to_vec()).collect())
    }

    #[test]
    fn the_three_forms_are_read() {
        let (_folder, path) = save("a.safetensors", &[("emb_params", &[3, 8], 0.5)]);
        assert_eq!(vectors(&path, &[8]).unwrap(), [[3, 8]]);
        assert_eq!(TextualInversion::read(&path).unwrap().token(), None);

        let (_folder, path) = save("b.safetensors", &[("<cat>", &[8], 0.5)]);
        assert_eq!(vectors(&path, &[8]).unwrap(), [[1, 8]]);
        assert_eq!(TextualInversion::read(&path).unwrap().token(), Some("<cat>"));

        let (_folder, path) = save("c.safetensors", &[("clip_g", &[2, 12], 0.5), ("clip_l", &[2, 8], 0.5)]);
        assert_eq!(vectors(&path, &[8, 12]).unwrap(), [[2, 8], [2, 12]]);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_file_key_and_shape() {
        let check = |tensors: &[(&str, &[usize], f32)], widths: &[usize], parts: &[&str]| {
            let (_folder, path) = save("style.safetensors", tensors);
            let message = vectors(&path, widths).unwrap_err().to_string();
            for part in [&["style.safetensors"], parts].concat() {
                assert!(message.contains(part), "`{part}` is not in: {message}");
            }
        };
        check(&[("emb_params", &[3, 8], 0.5)], &[16], &["emb_params", "[3, 8]", "[3, 16]"]);
        check(&[("emb_params", &[3, 8], 0.5)], &[8, 12], &["clip_l", "[1, 8]"]);
        check(&[("clip_l", &[3, 8], 0.5)], &[8, 12], &["clip_g", "[3, 12]"]);
        check(&[("clip_l", &[3, 8], 0.5), ("clip_g", &[2, 12], 0.5)], &[8, 12], &["clip_g", "[3, 12]"]);
        check(&[("clip_l", &[3, 8], 0.5), ("clip_g", &[3, 12], 0.5)], &[8], &["two text encoders"]);
        check(&[("<cat>", &[2, 2, 2], 0.5)], &[2], &["<cat>", "[2, 2, 2]"]);
        check(&[("emb_params", &[1, 2], f32::NAN)], &[2], &["emb_params", "not finite"]);
    }

    #[test]
    fn pickles_and_broken_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (name, part) in
            [("a.pt", "pickle"), ("a.bin", "pickle"), ("a.safetensors", "not a readable safetensors file")]
        {
            let path = folder.path().join(name);
            std::fs::write(&path, b"\x80\x02}q\x00.").unwrap();
            let message = TextualInversion::read(&path).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains(part), "{message}");
        }
        let missing = TextualInversion::read(&folder.path().join("none.safetensors")).unwrap_err();
        assert!(missing.to_string().contains("none.safetensors"), "{missing}");
    }
}
