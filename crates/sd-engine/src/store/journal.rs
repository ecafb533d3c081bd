//! What is written of one job while it lives.

use operations_contract::{ImageData, JobEvent, JobView};
use rusqlite::params;

use super::jobs::BLOCK;
use super::{Store, StoreError, events, int};

/// The store's side of one job that is not over.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    store: Store,
    seq: i64,
}

impl Journal {
    pub(super) fn new(store: Store, seq: i64) -> Self {
        Self { store, seq }
    }

    pub(crate) fn seq(&self) -> i64 {
        self.seq
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The pictures that it came with, by the paths of their fields.
    pub(crate) fn inputs(&self) -> Result<Vec<(String, ImageData)>, StoreError> {
        let connection = &self.store.open_now().connection;
        let mut rows = connection.prepare_cached("SELECT path, bytes FROM inputs WHERE job = ?")?;
        let mut rows = rows.query([self.seq])?;
        let mut inputs = Vec::new();
        while let Some(row) = rows.next()? {
            inputs.push((row.get(0)?, ImageData::new(row.get::<_, Vec<u8>>(1)?)));
        }
        Ok(inputs)
    }

    /// Writes down that it runs, and what it told since it was last written down.
    pub(crate) fn start(&self, view: &JobView, told: &[(u64, JobEvent)]) -> Result<(), StoreError> {
        self.store.writing(events::weight(told), || self.write_start(view, told))
    }

    fn write_start(&self, view: &JobView, told: &[(u64, JobEvent)]) -> Result<(), StoreError> {
        let view = serde_json::to_string(view)?;
        let open = &mut *self.store.open_now();
        let transaction = open.connection.transaction()?;
        transaction
            .prepare_cached("UPDATE jobs SET state = 'running', view = ? WHERE seq = ?")?
            .execute(params![view, self.seq])?;
        events::insert(&transaction, self.seq, told)?;
        transaction.commit()?;
        Ok(())
    }

    /// Reserves more event ids: those from `from` on, up to the one that it gives.
    pub(crate) fn reserve(&self, from: u64) -> Result<u64, StoreError> {
        self.store.writing(0, || self.write_reserved(from))
    }

    fn write_reserved(&self, from: u64) -> Result<u64, StoreError> {
        let reserved = from + BLOCK;
        let connection = &self.store.open_now().connection;
        connection
            .prepare_cached("UPDATE jobs SET next_event = ? WHERE seq = ?")?
            .execute(params![int(reserved), self.seq])?;
        Ok(reserved)
    }

    /// Writes down its end, the rest of its story and its images, all or nothing.
    pub(crate) fn finish(&self, view: &JobView, told: &[(u64, JobEvent)]) -> Result<(), StoreError> {
        self.store.writing(events::weight(told), || self.write_end(view, told))
    }

    fn write_end(&self, view: &JobView, told: &[(u64, JobEvent)]) -> Result<(), StoreError> {
        let text = serde_json::to_string(view)?;
        let next_event = told.last().map_or(0, |(id, _)| id + 1);
        let open = &mut *self.store.open_now();
        let transaction = open.connection.transaction()?;
        let bytes = events::insert(&transaction, self.seq, told)? + text.len() as u64;
        // What it was made of is not needed any more.
        transaction.prepare_cached("DELETE FROM inputs WHERE job = ?")?.execute([self.seq])?;
        let ended = transaction
            .prepare_cached(
                "UPDATE jobs SET state = ?, view = ?, request = NULL, finished_ms = ?, next_event = ?, bytes = ?
                 WHERE seq = ? AND finished_ms IS NULL",
            )?
            .execute(params![
                view.state.as_str(),
                text,
                int(view.finished_ms.unwrap_or_default()),
                int(next_event),
                int(bytes),
                self.seq
            ])?;
        if ended != 1 {
            // A job never ends twice: what was written down first counts.
            tracing::error!(job = %view.job_id, "the job was over already");
            return Ok(());
        }
        transaction.commit()?;
        open.over.jobs += 1;
        open.over.bytes += bytes;
        Ok(())
    }
}
