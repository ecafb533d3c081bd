//! The configuration file: where it is, and what stands in it.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::tables::KEY;
use crate::exit::Failure;

/// The name of the file in the usual places.
const USUAL: &str = "sd-worker/config.toml";

/// A configuration file that was read.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    pub(crate) path: PathBuf,
    pub(crate) entries: Vec<Entry>,
    /// Each `[[models]]`.
    pub(crate) tables: Vec<Table>,
}

/// A table of the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) entries: Vec<Entry>,
    /// Counts from 1.
    pub(crate) line: usize,
}

/// One key of the file. Its values are texts, as a flag would have them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) values: Vec<String>,
    /// Whether they stand in `[...]`.
    pub(crate) is_list: bool,
    /// Counts from 1.
    pub(crate) line: usize,
}

impl ConfigFile {
    /// Reads the file that was named, which must exist, or the first that is there in the usual places.
    pub(crate) fn find(named: Option<&Path>) -> Result<Option<Self>, Failure> {
        match named {
            Some(path) => Self::read(path).map(Some),
            None => {
                usual_places().iter().find(|path| path.is_file()).map(|path| Self::read(path)).transpose()
            }
        }
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::refused(format!("configuration {}: {error}", path.display())))?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Failure> {
        let line_of = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        let refused = |line: usize, reason: &str| {
            Failure::refused(format!("configuration {}:{line}: {reason}", path.display()))
        };
        // The error's own form shows the line, which may hold a secret.
        let table = DeTable::parse(text)
            .map_err(|error| refused(line_of(error.span().map_or(0, |span| span.start)), error.message()))?;
        let entries = |table: &DeTable<'_>| -> Result<Vec<Entry>, Failure> {
            let mut entries = Vec::new();
            for (key, value) in table {
                let (key, line) = (key.get_ref().to_string(), line_of(key.span().start));
                let (values, is_list) =
                    values(value).map_err(|reason| refused(line, &format!("{key} {reason}")))?;
                entries.push(Entry { key, values, is_list, line });
            }
            // The table is sorted by name; people read from the top.
            entries.sort_by_key(|entry| entry.line);
            Ok(entries)
        };
        let (mut table, mut tables) = (table.into_inner(), Vec::new());
        if let Some((key, value)) = table.remove_entry(KEY) {
            let wrong = || refused(line_of(key.span().start), "models are tables, each under [[models]]");
            let DeValue::Array(items) = value.get_ref() else { return Err(wrong()) };
            for item in items {
                let DeValue::Table(table) = item.get_ref() else { return Err(wrong()) };
                tables.push(Table { entries: entries(table)?, line: line_of(item.span().start) });
            }
        }
        Ok(Self { path: path.to_owned(), entries: entries(&table)?, tables })
    }

    /// `FILE:LINE`.
    pub(crate) fn line(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }

    /// `FILE:LINE` of an entry.
    pub(crate) fn place(&self, entry: &Entry) -> String {
        self.line(entry.line)
    }

    /// Whether others than its owner may read the file.
    pub(crate) fn is_open_to_others(&self) -> bool {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            std::fs::metadata(&self.path).is_ok_and(|metadata| metadata.mode() & 0o044 != 0)
        }
        #[cfg(not(unix))]
        false
    }
}

fn values(value: &Spanned<DeValue<'_>>) -> Result<(Vec<String>, bool), String> {
    match value.get_ref() {
        DeValue::Array(items) => {
            let items: Result<Vec<String>, String> =
                items.iter().map(|item| single(item.get_ref())).collect();
            Ok((items?, true))
        }
        value => Ok((vec![single(value)?], false)),
    }
}

fn single(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Boolean(yes) => Ok(yes.to_string()),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| format!("must be a smaller number than {number}")),
        other => Err(format!(
            "must be a text, a number, true, false or a list of these, not a {}",
            other.type_str()
        )),
    }
}

/// The user's own file first, then the machine's.
fn usual_places() -> Vec<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    own.into_iter().chain([PathBuf::from("/etc")]).map(|folder| folder.join(USUAL)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ConfigFile, String> {
        ConfigFile::parse(Path::new("c.toml"), text).map_err(|failure| failure.message)
    }

    #[test]
    fn values_become_the_texts_of_flags() {
        let file =
            parse("b = 1_000\n# a comment\na = \"x\"\n\nyes = true\nlist = [\"p=q\", 2]\nhex = 0x10\n")
                .unwrap();
        let read: Vec<_> = file
            .entries
            .iter()
            .map(|entry| (entry.key.as_str(), entry.values.join("|"), entry.line))
            .collect();
        let expected =
            [("b", "1000", 1), ("a", "x", 3), ("yes", "true", 5), ("list", "p=q|2", 6), ("hex", "16", 7)];
        assert_eq!(read, expected.map(|(key, value, line)| (key, value.to_owned(), line)));
        assert!(file.entries[3].is_list);
    }

    #[test]
    fn what_is_no_value_is_refused_with_its_line() {
        for (text, part) in [
            ("a = 1\n[server]\nport = 1\n", "c.toml:2: server must be a text"),
            ("a = 1\na = 2\n", "c.toml:2: "),
            ("token = \"s3cret\nb = 1\n", "c.toml:1: "),
            ("day = 2020-01-01\n", "c.toml:1: day must be"),
            ("b = 1\nmodels = \"sd15\"\n", "c.toml:2: models are tables"),
            ("[[models]]\nvae = { a = 1 }\n", "c.toml:2: vae must be a text"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part) && !error.contains("s3cret"), "{text:?}: {error}");
        }
    }
}
