//! Which snapshot of a repository in the hub cache its name means.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The snapshot of the branch `main` in the repository's `folder`, else that of the revision that was fetched last.
///
/// Only what a file below `refs` names counts: such a file is written when everything of the revision is there.
pub(crate) fn usual(folder: &Path) -> Option<PathBuf> {
    let refs = folder.join("refs");
    of(folder, &refs.join("main")).or_else(|| {
        let mut others = Vec::new();
        collect(&refs, &mut others);
        others.sort();
        others.into_iter().rev().find_map(|(_, reference)| of(folder, &reference))
    })
}

/// The snapshot that the file `reference` names.
fn of(folder: &Path, reference: &Path) -> Option<PathBuf> {
    let commit = fs::read_to_string(reference).ok()?;
    let commit = commit.trim();
    let plain = !commit.is_empty() && commit.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    let snapshot = folder.join("snapshots").join(commit);
    (plain && snapshot.is_dir()).then_some(snapshot)
}

/// The files below `refs` (branches may have slashes in their names) with the time at which each was written.
fn collect(refs: &Path, into: &mut Vec<(SystemTime, PathBuf)>) {
    for entry in fs::read_dir(refs).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            collect(&entry.path(), into);
        } else if metadata.is_file() {
            into.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Fetches `commit` as `revision`, so many seconds after the beginning of time.
    fn fetch(folder: &Path, revision: &str, commit: &str, seconds: u64) {
        fs::create_dir_all(folder.join("snapshots").join(commit)).unwrap();
        let reference = folder.join("refs").join(revision);
        fs::create_dir_all(reference.parent().unwrap()).unwrap();
        fs::write(&reference, format!("{commit}\n")).unwrap();
        let file = fs::File::options().write(true).open(&reference).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }

    #[test]
    fn main_is_meant_and_otherwise_what_was_fetched_last() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path();
        let snapshot = |commit: &str| Some(folder.join("snapshots").join(commit));
        assert_eq!(usual(folder), None);
        fetch(folder, "dev", "a1", 300);
        assert_eq!(usual(folder), snapshot("a1"));
        fetch(folder, "feature/x", "b2", 200);
        assert_eq!(usual(folder), snapshot("a1"));
        fetch(folder, "v1.0", "c3", 400);
        assert_eq!(usual(folder), snapshot("c3"));
        fs::remove_dir_all(folder.join("snapshots/c3")).unwrap();
        assert_eq!(usual(folder), snapshot("a1"));
        fetch(folder, "main", "d4", 100);
        assert_eq!(usual(folder), snapshot("d4"));
    }

    /// A download that was broken off leaves a snapshot that nothing refers to.
    #[test]
    fn what_is_not_whole_or_lies_elsewhere_is_none() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("models--a--b");
        fs::create_dir_all(folder.join("snapshots/a1")).unwrap();
        assert_eq!(usual(&folder), None);
        fs::create_dir_all(folder.join("refs")).unwrap();
        for elsewhere in ["", "..", "../..", "/", "a1/../../.."] {
            fs::write(folder.join("refs/dev"), elsewhere).unwrap();
            assert_eq!(usual(&folder), None, "{elsewhere:?}");
        }
    }
}
