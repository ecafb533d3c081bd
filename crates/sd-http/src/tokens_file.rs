//! The file of `--tokens-file`: one `name:token[:scope,scope]` a line.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::{fs, io};

use sha2::{Digest, Sha256};

use crate::caller::{Caller, Scopes};
use crate::token::{ApiToken, Entry, Tokens};

/// More than anyone has tokens for.
const MAX_BYTES: u64 = 1 << 20;
const MAX_NAME: usize = 64;

/// A file of tokens that is read again when it changes.
#[derive(Debug)]
pub struct TokensFile {
    path: PathBuf,
    tokens: Tokens,
    /// What was read last, as its SHA-256; `None`: it could not be read.
    seen: Option<[u8; 32]>,
}

/// What is wrong with a file of tokens. No part of a token is told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokensFileError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line is broken.
    #[error("{}, line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// There is none: nobody could use the worker.
    #[error("{}: holds no token", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl TokensFile {
    /// Reads the file.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, TokensFileError> {
        let path = path.into();
        let bytes = read(&path)?;
        let entries = parse(&bytes, &path)?;
        Ok(Self { path, tokens: Tokens::of(entries), seen: Some(Sha256::digest(&bytes).into()) })
    }

    /// The tokens, as they are at each moment.
    pub fn tokens(&self) -> Tokens {
        self.tokens.clone()
    }

    /// Whether others than the owner may read the file, or change it.
    #[cfg(unix)]
    pub fn is_open_to_others(&self) -> bool {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(&self.path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0)
    }

    /// Whether others than the owner may read the file: this system does not tell in one word.
    #[cfg(not(unix))]
    pub fn is_open_to_others(&self) -> bool {
        false
    }

    /// Looks whether the file has changed, and takes its tokens if so. Gives whether it did. After an error the tokens
    /// stay as they were, and the same fault is told once. The whole file is read: it is small, and its time of change
    /// may be too coarse to tell two changes apart.
    pub fn refresh(&mut self) -> Result<bool, TokensFileError> {
        let bytes = match read(&self.path) {
            Ok(bytes) => bytes,
            Err(_) if self.seen.is_none() => return Ok(false),
            Err(error) => {
                self.seen = None;
                return Err(error);
            }
        };
        let digest = Sha256::digest(&bytes).into();
        if self.seen == Some(digest) {
            return Ok(false);
        }
        self.seen = Some(digest);
        self.tokens.replace(parse(&bytes, &self.path)?);
        Ok(true)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TokensFileError> {
    let told = |source| TokensFileError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(told)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(told)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(told(io::Error::other(format!("is larger than {MAX_BYTES} bytes"))));
    }
    Ok(bytes)
}

fn parse(bytes: &[u8], path: &Path) -> Result<Vec<Entry>, TokensFileError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut lines_of: HashMap<&str, usize> = HashMap::new();
    let mut line_of_entry = Vec::new();
    for (index, bytes) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = index + 1;
        let broken = |reason: String| TokensFileError::Line { path: path.to_owned(), line, reason };
        let text = std::str::from_utf8(bytes).map_err(|_| broken("is not UTF-8".into()))?.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (name, token, scopes) = split(text).map_err(|reason| broken(reason.into()))?;
        if let Some(before) = lines_of.insert(name, line) {
            return Err(broken(format!("the name `{name}` stands on line {before} already")));
        }
        let same = |entry: &Entry| bool::from(entry.token.is(&token));
        if let Some(before) = entries.iter().position(same) {
            return Err(broken(format!("the token stands on line {} already", line_of_entry[before])));
        }
        entries.push(Entry { token, caller: Caller::new(Some(name.into()), scopes) });
        line_of_entry.push(line);
    }
    if entries.is_empty() {
        return Err(TokensFileError::Empty { path: path.to_owned() });
    }
    Ok(entries)
}

/// `name:token[:scope,scope]`; without scopes a token may generate.
fn split(line: &str) -> Result<(&str, ApiToken, Scopes), &'static str> {
    let mut parts = line.splitn(3, ':');
    let name = parts.next().unwrap_or_default().trim();
    let token = parts.next().ok_or("is not `name:token` or `name:token:scopes`")?.trim();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(fits) {
        return Err("a name is 1 to 64 letters, digits, `.`, `_` and `-`");
    }
    let token = ApiToken::new(token)
        .map_err(|_| "a token is one or more visible ASCII characters, without a colon")?;
    let scopes = match parts.next() {
        None => Scopes::GENERATE,
        Some(list) => Scopes::parse(list).ok_or(
            "what follows the second colon is a list of `generate` and `admin`; a token has no colon",
        )?,
    };
    Ok((name, token, scopes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Entry>, String> {
        parse(text.as_bytes(), Path::new("tokens")).map_err(|error| error.to_string())
    }

    #[test]
    fn names_tokens_and_scopes_are_read() {
        let text = "# who may\n\n  anna:t0ken \r\nops : s3cret : admin\nboth:abc:generate, admin\n";
        let entries = parsed(text).unwrap();
        let told: Vec<String> = entries.iter().map(|entry| format!("{:?}", entry.caller)).collect();
        assert_eq!(entries.len(), 3);
        assert!(told[0].contains("\"anna\"") && told[0].contains("generate: true, admin: false"), "{told:?}");
        assert!(told[1].contains("generate: false, admin: true"), "{told:?}");
        assert!(told[2].contains("generate: true, admin: true"), "{told:?}");
        assert!(bool::from(entries[0].token.is(&ApiToken::new("t0ken").unwrap())));
    }

    #[test]
    fn a_broken_line_is_named_by_its_number_and_its_secret_is_not_told() {
        for (text, told) in [
            ("hush", "tokens, line 1: is not `name:token`"),
            ("a:x\n\n# c\na:y", "tokens, line 4: the name `a` stands on line 1 already"),
            ("a:hush\nb:hush", "tokens, line 2: the token stands on line 1 already"),
            (":hush", "tokens, line 1: a name is"),
            ("a/b:hush", "tokens, line 1: a name is"),
            ("a:", "tokens, line 1: a token is"),
            ("a:hush hush", "tokens, line 1: a token is"),
            ("a:hush:root", "tokens, line 1: what follows the second colon"),
            ("a:hush:", "tokens, line 1: what follows the second colon"),
            ("a:hu:sh", "tokens, line 1: what follows the second colon"),
            ("# nobody\n", "tokens: holds no token"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.starts_with(told) && !error.contains("hush"), "{text:?}: {error}");
        }
    }
}
