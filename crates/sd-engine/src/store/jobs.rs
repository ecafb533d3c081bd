//! Jobs: taken in and shown.

use operations_contract::{ImageData, JobEvent, JobId, JobView, Operation};
use rusqlite::{Connection, TransactionBehavior, params};
use serde_json::Value;

use super::{Events, Journal, Store, StoreError, events, int, rows};
use crate::idempotency::IdempotencyKey;

/// So many event ids are reserved at once for what a job tells without writing it down.
pub(super) const BLOCK: u64 = 1024;

/// A job that is to be taken in.
pub(crate) struct NewJob<'a> {
    pub(crate) view: &'a JobView,
    pub(crate) caller: Option<&'a str>,
    pub(crate) key: Option<&'a IdempotencyKey>,
    /// The resolved operation; its pictures are there and count for nothing.
    pub(crate) operation: Operation,
    /// The pictures, by the paths of their fields.
    pub(crate) inputs: &'a [(String, ImageData)],
    /// What it tells first, with ids from 1.
    pub(crate) events: &'a [(u64, JobEvent)],
}

/// What became of it.
pub(crate) enum Taken {
    /// It is written down.
    New {
        journal: Journal,
        /// Ids below this one may be told without asking again.
        reserved: u64,
    },
    /// The caller has sent it before under the same key.
    Known(Known),
    /// The caller has sent something else under the same key.
    OtherBody(JobId),
}

/// A job by its name, and the seed of its first image.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) job_id: JobId,
    pub(crate) seed: u64,
}

impl Store {
    /// Writes a job down, unless its caller has used its key before.
    pub(crate) fn accept(&self, new: NewJob<'_>) -> Result<Taken, StoreError> {
        // What is held may be what it takes to forget one.
        self.0.reserve.fill()?;
        let bytes = new.inputs.iter().map(|(_, image)| image.len() as u64).sum();
        self.writing(bytes, || self.write_down(new))
    }

    fn write_down(&self, new: NewJob<'_>) -> Result<Taken, StoreError> {
        let NewJob { view, caller, key, mut operation, inputs, events, .. } = new;
        for (path, image) in operation.images_mut() {
            let known = inputs.iter().any(|(input, _)| *input == path);
            *image = if known { ImageData::new([0]) } else { ImageData::default() };
        }
        let (view_text, request) = (serde_json::to_string(view)?, serde_json::to_string(&operation)?);
        let reserved = events.last().map_or(1, |(id, _)| id + 1) + BLOCK;

        let open = &mut *self.open_now();
        let transaction = open.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if let Some(key) = key
            && let Some(known) = by_key(&transaction, caller, key)?
        {
            return Ok(known);
        }
        transaction
            .prepare_cached(
                "INSERT INTO jobs (id, state, operation, model, caller, idempotency_key, fingerprint, created_ms,
                     next_event, view, request)
                 VALUES (?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                view.job_id.as_str(),
                view.operation.as_str(),
                view.model,
                caller,
                key.map(IdempotencyKey::as_str),
                key.map(|key| key.fingerprint().as_slice()),
                int(view.created_ms),
                int(reserved),
                view_text,
                request
            ])?;
        let seq = transaction.last_insert_rowid();
        let mut input_row =
            transaction.prepare_cached("INSERT INTO inputs (job, path, bytes) VALUES (?, ?, ?)")?;
        for (path, image) in inputs {
            input_row.execute(params![seq, path, image.bytes()])?;
        }
        drop(input_row);
        events::insert(&transaction, seq, events)?;
        transaction.commit()?;
        Ok(Taken::New { journal: Journal::new(self.clone(), seq), reserved })
    }

    /// What this caller sent before under this key.
    pub(crate) fn known(
        &self,
        caller: Option<&str>,
        key: &IdempotencyKey,
    ) -> Result<Option<Taken>, StoreError> {
        by_key(&self.open_now().connection, caller, key)
    }

    /// One job, as it was last written down.
    pub(crate) fn view(&self, id: &JobId) -> Result<Option<JobView>, StoreError> {
        let connection = &self.open_now().connection;
        let mut statement =
            connection.prepare_cached(&format!("SELECT {} FROM jobs WHERE id = ?", rows::VIEW))?;
        let mut row = statement.query([id.as_str()])?;
        row.next()?.map_or(Ok(None), |row| rows::view(row, 0))
    }

    /// One job with its whole story, as it was last written down.
    pub(crate) fn story(&self, id: &JobId) -> Result<Option<(JobView, Events)>, StoreError> {
        let connection = &self.open_now().connection;
        let mut statement =
            connection.prepare_cached(&format!("SELECT seq, {} FROM jobs WHERE id = ?", rows::VIEW))?;
        let mut row = statement.query([id.as_str()])?;
        let Some(row) = row.next()? else { return Ok(None) };
        let Some(view) = rows::view(row, 1)? else { return Ok(None) };
        Ok(Some((view, events::of_job(connection, row.get(0)?)?)))
    }
}

fn by_key(
    connection: &Connection,
    caller: Option<&str>,
    key: &IdempotencyKey,
) -> Result<Option<Taken>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT fingerprint, {} FROM jobs WHERE ifnull(caller, '') = ? AND idempotency_key = ?",
        rows::VIEW
    ))?;
    let mut row = statement.query(params![caller.unwrap_or_default(), key.as_str()])?;
    let Some(row) = row.next()? else { return Ok(None) };
    let Some(view) = rows::view(row, 1)? else { return Ok(None) };
    let fingerprint: Vec<u8> = row.get(0)?;
    Ok(Some(match fingerprint == key.fingerprint() {
        true => Taken::Known(Known { seed: seed(&view), job_id: view.job_id }),
        false => Taken::OtherBody(view.job_id),
    }))
}

fn seed(view: &JobView) -> u64 {
    view.parameters.get("seed").and_then(Value::as_u64).unwrap_or_default()
}
