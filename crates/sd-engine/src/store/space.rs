//! Room that is made: what the log holds goes into the database, and what is free there goes back to the disk.

use std::time::Duration;

use rusqlite::Connection;

use super::{Store, StoreError};

/// So many pages are given back in one transaction: what it takes of the log fits into the reserve.
const STEP: u32 = 64;
/// What has no more bytes than this fits into the reserve many times.
const LIGHT: u64 = 64 << 10;
/// As long SQLite waits for another process that has the database locked. Its own default in this program.
const PATIENCE: Duration = Duration::from_secs(5);

impl Store {
    /// Something that writes about so many bytes: only if there is room for their way into the database, where they stand
    /// for a moment beside the log. Not to be called with the store locked.
    pub(super) fn writing<T>(
        &self,
        bytes: u64,
        write: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let heavy = bytes > LIGHT;
        // What a page of a picture has beside its bytes is much less than this.
        let held = self.0.reserve.hold(if heavy { bytes + bytes / 32 } else { 0 })?;
        let outcome = self.looked_at(write());
        drop(held);
        // What was written in vain stands in the log as well.
        if heavy || matches!(outcome, Err(StoreError::Full)) {
            self.empty_log();
        }
        outcome
    }

    /// Something that must be possible on a full disk: where there is no other room, with the room that is held for it. It
    /// may be done twice. Not to be called with the store locked.
    pub(super) fn in_need<T>(&self, work: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
        match self.looked_at(work()) {
            Err(StoreError::Full) => {}
            outcome => return outcome,
        }
        self.0.reserve.release();
        self.empty_log();
        let outcome = self.looked_at(work());
        self.empty_log();
        self.fill_reserve();
        outcome
    }

    /// Holds as much room as there is, up to what is always held.
    pub(super) fn fill_reserve(&self) {
        if let Err(error) = self.0.reserve.fill() {
            tracing::warn!(%error, "no new jobs are taken until there is room on the disk");
        }
    }

    /// Brings the log into the database and makes its file empty.
    pub(super) fn empty_log(&self) {
        if let Err(error) = checkpoint(&self.open_now().connection) {
            // It is tried again with each transaction.
            tracing::warn!(%error, "the log of the store cannot be brought into the database yet");
        }
    }

    /// Gives room that is free inside the store back to the disk, all but what is always held.
    pub(crate) fn shrink(&self) -> Result<(), StoreError> {
        while self.in_need(|| self.shrink_a_step())? {}
        self.fill_reserve();
        Ok(())
    }

    /// True if there is more to give back.
    fn shrink_a_step(&self) -> Result<bool, StoreError> {
        let connection = &self.open_now().connection;
        let free = || connection.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0));
        let before = free()?;
        if before > 0 {
            let mut statement = connection.prepare_cached(&format!("PRAGMA incremental_vacuum({STEP})"))?;
            let mut pages = statement.query([])?;
            while pages.next()?.is_some() {}
        }
        // Only what the log gives to the database makes its file shorter.
        checkpoint(connection)?;
        let left = free()?;
        Ok(left > 0 && left < before)
    }
}

/// As far as others that read the database let it: it does not wait for them, which may be at a long copy.
fn checkpoint(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(Duration::ZERO)?;
    let done = connection.pragma_update_and_check(None, "wal_checkpoint", "TRUNCATE", |_| Ok(()));
    connection.busy_timeout(PATIENCE)?;
    Ok(done?)
}
