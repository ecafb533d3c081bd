//! What can go wrong with the store.

use std::path::PathBuf;

use operations_contract::ErrorCode;

/// Why the store did not do what it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another worker has it open.
    #[error("the data directory {} is in use by another worker{by}", .dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// ` (process N)`, where that is known.
        by: String,
    },
    /// The directory or its lock file cannot be used.
    #[error("the data directory {} cannot be used: {source}", .dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It was written by a newer version of this program.
    #[error("the store has version {found}; this program knows versions up to {known}")]
    Newer {
        /// The version that it has.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// There is no room: on the disk, or up to the store's limit.
    #[error("the store is full")]
    Full,
    /// Anything else that SQLite complains about.
    #[error("the store failed: {0}")]
    Sqlite(rusqlite::Error),
    /// Something in it cannot be read.
    #[error("the store holds what cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ffi::{self, ErrorCode};
        match error.sqlite_error() {
            Some(cause) if cause.code == ErrorCode::DiskFull => Self::Full,
            // The index of the WAL could not grow.
            Some(cause) if cause.extended_code == ffi::SQLITE_IOERR_SHMSIZE => Self::Full,
            _ => Self::Sqlite(error),
        }
    }
}

impl StoreError {
    /// As a client is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Full => ErrorCode::StorageFull,
            _ => ErrorCode::StorageFailed,
        }
    }
}
