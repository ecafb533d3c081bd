//! The tensors of safetensors files by name, and views of them under other names.

use std::borrow::Cow;
use std::collections::HashMap;

use safetensors::{Dtype, SafeTensors};

use crate::files::FileBytes;
use crate::{Error, Result};

/// A mapped file and what error messages call it.
#[derive(Debug, Clone)]
pub(crate) struct TensorFile {
    pub(crate) name: String,
    pub(crate) bytes: FileBytes,
}

/// Where one tensor lies, and how it is seen.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    file: usize,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    start: usize,
    end: usize,
    /// The file holds the matrix with rows and columns exchanged.
    transposed: bool,
}

impl Location {
    /// Bytes in the file.
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// The same values in another shape; `None` when their number differs.
    pub(crate) fn reshaped(&self, shape: Vec<usize>) -> Option<Self> {
        let count = |shape: &[usize]| shape.iter().product::<usize>();
        (count(&shape) == count(&self.shape)).then(|| Self { shape, ..self.clone() })
    }

    /// The `part`th of `of` equal parts along the first dimension; `None` when it does not divide.
    pub(crate) fn rows(&self, part: usize, of: usize) -> Option<Self> {
        let (&rows, rest) = self.shape.split_first()?;
        let bytes = self.len();
        if part >= of || !rows.is_multiple_of(of) || !bytes.is_multiple_of(of) || self.transposed {
            return None;
        }
        let start = self.start + part * (bytes / of);
        let shape = std::iter::once(rows / of).chain(rest.iter().copied()).collect();
        Some(Self { start, end: start + bytes / of, shape, ..self.clone() })
    }

    /// The matrix with rows and columns exchanged; `None` when it is none.
    pub(crate) fn transposed(&self) -> Option<Self> {
        match self.shape[..] {
            [rows, columns] => {
                Some(Self { shape: vec![columns, rows], transposed: !self.transposed, ..self.clone() })
            }
            _ => None,
        }
    }
}

/// Every tensor of one or more files.
#[derive(Debug, Clone)]
pub(crate) struct TensorIndex {
    files: Vec<TensorFile>,
    entries: HashMap<String, Location>,
    metadata: HashMap<String, String>,
}

impl TensorIndex {
    /// Reads the headers of `files`.
    ///
    /// # Errors
    /// [`Error::BadFile`] when one is cut, has a bad header or is no safetensors file.
    pub(crate) fn read(files: Vec<TensorFile>) -> Result<Self> {
        let (mut entries, mut texts) = (HashMap::new(), HashMap::new());
        for (number, file) in files.iter().enumerate() {
            let bytes = file.bytes.as_slice();
            let bad = |reason: String| Error::BadFile { file: file.name.clone(), reason };
            let (header, metadata) =
                SafeTensors::read_metadata(bytes).map_err(|error| match foreign_format(bytes) {
                    Some(format) => bad(format.into()),
                    None => bad(format!("not a readable safetensors file: {error}")),
                })?;
            let data = header + 8;
            if data + metadata.data_len() != bytes.len() {
                return Err(bad(format!(
                    "cut or padded: the header describes {} bytes, the file has {}",
                    data + metadata.data_len(),
                    bytes.len()
                )));
            }
            for (key, info) in metadata.tensors() {
                let (start, end) = info.data_offsets;
                let location = Location {
                    file: number,
                    dtype: info.dtype,
                    shape: info.shape.clone(),
                    start: data + start,
                    end: data + end,
                    transposed: false,
                };
                entries.insert(key, location);
            }
            texts.extend(metadata.metadata().clone().unwrap_or_default());
        }
        Ok(Self { files, entries, metadata: texts })
    }

    /// The same files with other names for (some of) their tensors. What `rename` gives nothing for is left out.
    pub(crate) fn renamed(&self, rename: impl Fn(&str, &Location) -> Vec<(String, Location)>) -> Self {
        let entries = self.entries.iter().flat_map(|(name, location)| rename(name, location)).collect();
        Self { files: self.files.clone(), entries, metadata: HashMap::new() }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Location> {
        self.entries.get(key)
    }

    /// The shape of a tensor.
    pub(crate) fn shape(&self, key: &str) -> Option<&[usize]> {
        self.entries.get(key).map(|location| location.shape.as_slice())
    }

    /// Every tensor, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Location)> {
        self.entries.iter().map(|(name, location)| (name.as_str(), location))
    }

    /// Whether there is no tensor.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The text that the files' writers left under `name`.
    pub(crate) fn metadata(&self, name: &str) -> Option<&str> {
        self.metadata.get(name).map(String::as_str)
    }

    /// What error messages call the files.
    pub(crate) fn file_names(&self) -> String {
        self.files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// What error messages call the file of one tensor.
    pub(crate) fn file_name(&self, location: &Location) -> &str {
        &self.files[location.file].name
    }

    /// The little-endian bytes of a tensor: those of the file, or a copy where it is transposed.
    pub(crate) fn bytes(&self, location: &Location) -> Cow<'_, [u8]> {
        let bytes = &self.files[location.file].bytes.as_slice()[location.start..location.end];
        match (location.transposed, &location.shape[..]) {
            (true, &[rows, columns]) => Cow::Owned(transpose(bytes, rows, columns)),
            _ => Cow::Borrowed(bytes),
        }
    }
}

/// `rows` x `columns` values from bytes that hold `columns` x `rows`.
fn transpose(bytes: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    let size = bytes.len() / (rows * columns).max(1);
    let mut result = Vec::with_capacity(bytes.len());
    for row in 0..rows {
        for column in 0..columns {
            let at = (column * rows + row) * size;
            result.extend_from_slice(&bytes[at..at + size]);
        }
    }
    result
}

/// What a file is that is no safetensors file, where its beginning tells.
fn foreign_format(bytes: &[u8]) -> Option<&'static str> {
    // Archives of torch start as zip files do; older ones with the first opcode of a pickle.
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80\x02") {
        return Some(
            "it is a pickle, whatever its name says, and could run code; convert it to safetensors first",
        );
    }
    if bytes.starts_with(b"GGUF") {
        return Some("it is a GGUF file, which is not read here; safetensors is");
    }
    // Where a large file was not fetched, git leaves a note in its place.
    if bytes.starts_with(b"version https://git-lfs") {
        return Some("it is a Git LFS pointer; the file itself was not downloaded");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(name: &str, shape: Vec<usize>) -> TensorIndex {
        let count: usize = shape.iter().product();
        let data: Vec<u8> = (0..count).flat_map(|value| (value as f32).to_le_bytes()).collect();
        let view = safetensors::tensor::TensorView::new(Dtype::F32, shape, &data).unwrap();
        let bytes = safetensors::serialize([(name, view)], None).unwrap();
        let file = TensorFile { name: "a.safetensors".into(), bytes: FileBytes::Shared(bytes.into()) };
        TensorIndex::read(vec![file]).unwrap()
    }

    fn values(index: &TensorIndex, location: &Location) -> Vec<f32> {
        let bytes = index.bytes(location);
        bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect()
    }

    #[test]
    fn views_are_parts_of_the_file() {
        let index = index("m", vec![6, 2]);
        let whole = index.get("m").unwrap();
        let second = whole.rows(1, 3).unwrap();
        assert_eq!((second.shape.clone(), values(&index, &second)), (vec![2, 2], vec![4.0, 5.0, 6.0, 7.0]));
        assert!(whole.rows(0, 4).is_none() && whole.rows(3, 3).is_none());
        assert_eq!(whole.reshaped(vec![6, 2, 1, 1]).unwrap().shape, [6, 2, 1, 1]);
        assert!(whole.reshaped(vec![5]).is_none());
        let exchanged = whole.transposed().unwrap();
        assert_eq!(exchanged.shape, [2, 6]);
        assert_eq!(values(&index, &exchanged)[..7], [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 1.0]);
        assert_eq!(values(&index, &exchanged.transposed().unwrap()), values(&index, whole));
    }

    #[test]
    fn what_is_no_safetensors_file_is_called_by_its_name() {
        for (start, word) in [
            (&b"PK\x03\x04"[..], "pickle"),
            (b"\x80\x02}q", "pickle"),
            (b"GGUF", "GGUF"),
            (b"version https://git-lfs.github.com/spec/v1", "LFS"),
            (b"{}", "not a readable"),
        ] {
            let bytes = FileBytes::Shared(start.to_vec().into());
            let file = TensorFile { name: "x.safetensors".into(), bytes };
            let message = TensorIndex::read(vec![file]).unwrap_err().to_string();
            assert!(message.contains(word) && message.contains("x.safetensors"), "{message}");
        }
    }
}
