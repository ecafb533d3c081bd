//! Whether a write failed because there is no room.
//!
//! SQLite tells of a full disk (`ENOSPC`), but of a quota that is used up (`EDQUOT`) only that a write failed: its own code
//! looks for the one and not for the other. So the directory is tried.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use rusqlite::ffi;

use super::{Store, StoreError};

/// What is written to try, beside the database.
const TRIED: &str = "worker.room";
/// More than a page and its head in the log: SQLite takes what is left up to the first of these that does not fit.
const BYTES: usize = 64 << 10;

/// What SQLite says when the system refuses to make a file larger.
const REFUSED: [i32; 6] = [
    ffi::SQLITE_IOERR_WRITE,
    ffi::SQLITE_IOERR_FSYNC,
    ffi::SQLITE_IOERR_DIR_FSYNC,
    ffi::SQLITE_IOERR_TRUNCATE,
    ffi::SQLITE_IOERR_CLOSE,
    ffi::SQLITE_CANTOPEN,
];

impl Store {
    /// The outcome of something that wrote, with the reason of a failure looked for. Not to be called with the store locked.
    pub(super) fn looked_at<T>(&self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        outcome.map_err(|error| looked_at(error, self.0.dir.as_deref()))
    }
}

/// The same error, or that the directory takes nothing more.
pub(super) fn looked_at(error: StoreError, dir: Option<&Path>) -> StoreError {
    let StoreError::Sqlite(sqlite) = &error else { return error };
    let refused = sqlite.sqlite_error().is_some_and(|cause| REFUSED.contains(&cause.extended_code));
    match dir.filter(|_| refused).map(takes_more) {
        Some(Err(reason)) if is_lack_of_room(reason.kind()) => {
            tracing::warn!(%error, %reason, "the store is full");
            StoreError::Full
        }
        _ => error,
    }
}

pub(super) fn is_lack_of_room(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

fn takes_more(dir: &Path) -> io::Result<()> {
    let path = dir.join(TRIED);
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&[0; BYTES])?;
        file.sync_all()
    });
    // A file that could not be made is not there to be removed.
    let _ = fs::remove_file(&path);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(extended_code: i32) -> StoreError {
        rusqlite::Error::SqliteFailure(ffi::Error::new(extended_code), None).into()
    }

    #[test]
    fn a_directory_that_takes_more_is_not_full_and_keeps_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for code in REFUSED {
            assert!(matches!(looked_at(failed(code), Some(dir.path())), StoreError::Sqlite(_)), "{code}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(matches!(looked_at(failed(ffi::SQLITE_FULL), None), StoreError::Full));
    }

    #[test]
    fn a_quota_counts_as_a_full_disk() {
        let quota = |kind| is_lack_of_room(io::Error::from(kind).kind());
        assert!(quota(ErrorKind::QuotaExceeded) && quota(ErrorKind::StorageFull));
        assert!(!quota(ErrorKind::PermissionDenied));
    }

    /// Writing to it fails as on a full disk, whoever asks.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_device_is_told_apart_from_a_broken_one() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", dir.path().join(TRIED)).unwrap();
        let told = looked_at(failed(ffi::SQLITE_IOERR_WRITE), Some(dir.path()));
        assert!(matches!(told, StoreError::Full), "{told}");
        std::os::unix::fs::symlink("/dev/full", dir.path().join(TRIED)).unwrap();
        let told = looked_at(failed(ffi::SQLITE_IOERR_READ), Some(dir.path()));
        assert!(matches!(told, StoreError::Sqlite(_)), "{told}");
    }
}
