//! Textual inversions by the names that prompts call them.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use sd_models::clip::TextualInversion;

use crate::{Error, Result};

/// Endings of files that may hold textual inversions; only the first is read.
const ENDINGS: [&str; 4] = ["safetensors", "pt", "bin", "pth"];

/// What textual inversions must fit.
pub(crate) struct Fit<'a> {
    /// The width of each text encoder.
    pub(crate) widths: &'a [usize],
    /// The most vectors that one may have: the tokens of a chunk.
    pub(crate) room: usize,
    pub(crate) device: &'a Device,
    pub(crate) dtype: DType,
}

/// The textual inversions of a pipeline.
#[derive(Debug, Default)]
pub(crate) struct Embeddings {
    entries: Vec<Embedding>,
}

#[derive(Debug)]
struct Embedding {
    /// The file's stem, and the token that the file names.
    names: Vec<String>,
    /// For each encoder `(vectors, width)`.
    vectors: Vec<Tensor>,
}

/// A stretch of a prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Part<'a> {
    /// Ordinary text.
    Text(&'a str),
    /// The name of a textual inversion: its number.
    Embedding(usize),
}

impl Embeddings {
    /// Reads `files`, and all files in `folder`. What does not fit is an error among the former, and among the latter a
    /// note: a folder may serve several models.
    pub(crate) fn load(
        files: &[PathBuf],
        folder: Option<&Path>,
        fit: &Fit<'_>,
    ) -> Result<(Self, Vec<String>)> {
        let mut embeddings = Self::default();
        for file in files {
            embeddings.add(file, fit)?;
        }
        let mut notes = Vec::new();
        for file in folder.map(listed).transpose()?.unwrap_or_default() {
            if let Err(error) = embeddings.add(&file, fit) {
                notes.push(format!("embedding left out: {error}"));
            }
        }
        Ok((embeddings, notes))
    }

    fn add(&mut self, file: &Path, fit: &Fit<'_>) -> Result<()> {
        let read = TextualInversion::read(file)?;
        let vectors = read.vectors(fit.widths, fit.device, fit.dtype)?;
        let refused = |value: String, limit: String| -> Result<()> {
            let value = format!("{}, {value}", file.display());
            Err(Error::InvalidRequest { field: "embedding", value, limit })
        };
        let count = vectors.first().map_or(Ok(0), |vectors| vectors.dim(0))?;
        if count > fit.room {
            let limit = format!("at most {} long: what one chunk of a prompt holds", fit.room);
            return refused(format!("{count} vectors long"), limit);
        }
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let token = read.token().filter(|token| *token != stem).map(str::to_owned);
        let names: Vec<String> = std::iter::once(stem).chain(token).collect();
        for name in &names {
            if name.trim().is_empty() || self.names().any(|known| same(known, name)) {
                return refused(format!("called `{name}`"), "called otherwise than every other".into());
            }
        }
        self.entries.push(Embedding { names, vectors });
        Ok(())
    }

    /// All names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().flat_map(|entry| &entry.names).map(String::as_str)
    }

    /// What the file of an embedding is called, without the ending.
    pub(crate) fn name(&self, which: usize) -> &str {
        self.entries[which].names.first().map_or("", String::as_str)
    }

    /// How many vectors an embedding has.
    pub(crate) fn count(&self, which: usize) -> usize {
        self.entries[which].vectors.first().and_then(|vectors| vectors.dim(0).ok()).unwrap_or(0)
    }

    /// The vectors of an embedding for an encoder, `(vectors, width)`.
    pub(crate) fn vectors(&self, which: usize, encoder: usize) -> &Tensor {
        &self.entries[which].vectors[encoder]
    }

    /// Finds the names in a text. A name counts where no letter, digit or underscore continues it; case does not
    /// matter; of several that begin at one place the longest counts.
    pub(crate) fn split<'a>(&self, text: &'a str) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        let mut begin = 0;
        let mut at = 0;
        while let Some(c) = text[at..].chars().next() {
            match self.named(text, at) {
                Some((which, length)) => {
                    if begin < at {
                        parts.push(Part::Text(&text[begin..at]));
                    }
                    parts.push(Part::Embedding(which));
                    at += length;
                    begin = at;
                }
                None => at += c.len_utf8(),
            }
        }
        if begin < text.len() {
            parts.push(Part::Text(&text[begin..]));
        }
        parts
    }

    /// The embedding whose name stands at `at`, and the length of that name in bytes.
    fn named(&self, text: &str, at: usize) -> Option<(usize, usize)> {
        let in_word = |c: char| c.is_alphanumeric() || c == '_';
        let begins_inside = text[..at].ends_with(in_word) && text[at..].starts_with(in_word);
        if begins_inside {
            return None;
        }
        let ends_inside = |length: usize| {
            let (name, after) = text[at..].split_at(length);
            name.ends_with(in_word) && after.starts_with(in_word)
        };
        let names = self.entries.iter().enumerate().flat_map(|(which, entry)| {
            entry.names.iter().filter_map(move |name| Some((which, prefix(&text[at..], name)?)))
        });
        names.filter(|(_, length)| !ends_inside(*length)).max_by_key(|(_, length)| *length)
    }
}

/// The files of `folder` that may be textual inversions, by name.
fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |source| sd_models::Error::Io { path: folder.to_path_buf(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        if path.is_file() && ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// How many bytes of `text` the name takes at its beginning, whatever the case.
fn prefix(text: &str, name: &str) -> Option<usize> {
    let mut rest = text.chars();
    for expected in name.chars() {
        let found = rest.next()?;
        if found != expected && !found.to_lowercase().eq(expected.to_lowercase()) {
            return None;
        }
    }
    Some(text.len() - rest.as_str().len())
}

fn same(name: &str, other: &str) -> bool {
    prefix(name, other) == Some(name.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(names: &[&str]) -> Embeddings {
        let entry = |name: &&str| Embedding { names: vec![(*name).to_owned()], vectors: Vec::new() };
        Embeddings { entries: names.iter().map(entry).collect() }
    }

    #[test]
    fn names_are_found_as_words_whatever_their_case() {
        let embeddings = named(&["cat", "<cat>", "cat-toy", "größe 2"]);
        let text = Part::Text;
        let name = Part::Embedding;
        for (prompt, expected) in [
            ("a cat", vec![text("a "), name(0)]),
            ("CAT, Cat", vec![name(0), text(", "), name(0)]),
            ("a <cat> cat-toy!", vec![text("a "), name(1), text(" "), name(2), text("!")]),
            ("cats concat cat_ cat2", vec![text("cats concat cat_ cat2")]),
            ("a cat-tree", vec![text("a "), name(0), text("-tree")]),
            ("x<cat>y", vec![text("x"), name(1), text("y")]),
            ("GRÖSSE 2 GRÖßE 2 größe 22", vec![text("GRÖSSE 2 "), name(3), text(" größe 22")]),
            ("", vec![]),
        ] {
            assert_eq!(embeddings.split(prompt), expected, "{prompt}");
        }
    }

    #[test]
    fn a_folder_that_is_none_is_refused() {
        let fit = Fit { widths: &[8], room: 75, device: &Device::Cpu, dtype: DType::F32 };
        let error = Embeddings::load(&[], Some(Path::new("/nowhere/at/all")), &fit).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_is_lost(prompt in r"(cat|<cat>|[a-z _<>é-]){0,30}") {
            let parts = named(&["cat", "<cat>"]).split(&prompt).into_iter().map(|part| match part {
                Part::Text(text) => text,
                Part::Embedding(which) => ["cat", "<cat>"][which],
            });
            prop_assert_eq!(parts.collect::<String>(), prompt);
        }
    }
}
