//! Jobs: taken in, taken up again after a restart, shown, and forgotten.

use std::time::Duration;

use operations_contract::{ImageData, JobEvent, JobId, JobState, JobView, NarrationLevel, Operation};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use serde_json::Value;

use super::{Events, Journal, Store, StoreError, Totals, events, int, uint};
use crate::idempotency::IdempotencyKey;
use crate::job::unix_ms;
use crate::registry::Retention;

/// So many event ids are reserved at once for what a job tells without writing it down.
pub(super) const BLOCK: u64 = 1024;

/// Said when a job that was interrupted is begun again.
const AGAIN: &str = "the worker stopped while the job ran; it is run again from its seed";

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

/// A job that was not over when the last process ended.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) journal: Journal,
    pub(crate) view: JobView,
    pub(crate) events: Events,
    pub(crate) next_event: u64,
    pub(crate) reserved: u64,
    /// Without its pictures.
    pub(crate) operation: Operation,
    pub(crate) has_inputs: bool,
    pub(crate) caller: Option<String>,
}

impl Store {
    /// Writes a job down, unless its caller has used its key before.
    pub(crate) fn accept(&self, new: NewJob<'_>) -> Result<Taken, StoreError> {
        self.looked_at(self.write_down(new))
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

    /// Forgets a job.
    pub(crate) fn forget(&self, journal: &Journal) -> Result<(), StoreError> {
        self.open_now()
            .connection
            .prepare_cached("DELETE FROM jobs WHERE seq = ?")?
            .execute([journal.seq()])?;
        Ok(())
    }

    /// One job, as it was last written down.
    pub(crate) fn view(&self, id: &JobId) -> Result<Option<JobView>, StoreError> {
        let connection = &self.open_now().connection;
        let mut statement = connection.prepare_cached("SELECT view FROM jobs WHERE id = ?")?;
        let text: Option<String> = statement.query_row([id.as_str()], |row| row.get(0)).optional()?;
        Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
    }

    /// One job with its whole story, as it was last written down.
    pub(crate) fn story(&self, id: &JobId) -> Result<Option<(JobView, Events)>, StoreError> {
        let connection = &self.open_now().connection;
        let mut statement = connection.prepare_cached("SELECT seq, view FROM jobs WHERE id = ?")?;
        let row: Option<(i64, String)> =
            statement.query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some((seq, view)) = row else { return Ok(None) };
        Ok(Some((serde_json::from_str(&view)?, events::of_job(connection, seq)?)))
    }

    /// The jobs that were not over when the last process ended, the oldest first. All of them wait again; those that ran
    /// have that in their stories.
    pub(crate) fn restore(&self) -> Result<Vec<Restored>, StoreError> {
        let open = &mut *self.open_now();
        let transaction = open.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut restored = Vec::new();
        {
            let mut rows = transaction.prepare_cached(
                "SELECT seq, view, request, caller, next_event,
                     EXISTS (SELECT 1 FROM inputs WHERE inputs.job = jobs.seq)
                 FROM jobs WHERE finished_ms IS NULL ORDER BY seq",
            )?;
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                let (view, request): (String, String) = (row.get(1)?, row.get(2)?);
                let mut operation: Operation = serde_json::from_str(&request)?;
                for (_, image) in operation.images_mut() {
                    *image = ImageData::default();
                }
                restored.push(Restored {
                    journal: Journal::new(self.clone(), row.get(0)?),
                    view: serde_json::from_str(&view)?,
                    events: Vec::new(),
                    next_event: uint(row.get(4)?),
                    reserved: 0,
                    operation,
                    has_inputs: row.get(5)?,
                    caller: row.get(3)?,
                });
            }
        }
        for job in &mut restored {
            take_up(&transaction, job)?;
        }
        transaction.commit()?;
        Ok(restored)
    }

    /// Forgets jobs that are over, the oldest first, until all bounds hold.
    pub(crate) fn evict(&self, retention: &Retention) -> Result<(), StoreError> {
        let open = &mut *self.open_now();
        let mut left = open.over;
        if oldest_too_much(&open.connection, retention, left)?.is_none() {
            return Ok(());
        }
        let transaction = open.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        while let Some((seq, bytes)) = oldest_too_much(&transaction, retention, left)? {
            transaction.prepare_cached("DELETE FROM jobs WHERE seq = ?")?.execute([seq])?;
            left.jobs = left.jobs.saturating_sub(1);
            left.bytes = left.bytes.saturating_sub(bytes);
        }
        transaction.commit()?;
        open.over = left;
        Ok(())
    }
}

/// How many jobs are over, and what they weigh.
pub(super) fn over(connection: &Connection) -> Result<Totals, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT count(*), ifnull(sum(bytes), 0) FROM jobs WHERE finished_ms IS NOT NULL")?;
    let over =
        statement.query_row([], |row| Ok(Totals { jobs: uint(row.get(0)?), bytes: uint(row.get(1)?) }))?;
    Ok(over)
}

/// The job that ended first, if the bounds do not allow it.
fn oldest_too_much(
    connection: &Connection,
    retention: &Retention,
    totals: Totals,
) -> Result<Option<(i64, u64)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, bytes, finished_ms FROM jobs WHERE finished_ms IS NOT NULL ORDER BY finished_ms, seq LIMIT 1",
    )?;
    let oldest = statement
        .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))
        .optional()?;
    let Some((seq, bytes, finished_ms)) = oldest else { return Ok(None) };
    let age = Duration::from_millis(unix_ms().saturating_sub(uint(finished_ms)));
    let too_many = totals.jobs > retention.max_jobs as u64;
    // The newest is kept whatever it weighs.
    let too_heavy = totals.jobs > 1 && totals.bytes > retention.max_bytes as u64;
    let too_much = age >= retention.max_age || too_many || too_heavy;
    Ok(too_much.then_some((seq, uint(bytes))))
}

fn by_key(
    connection: &Connection,
    caller: Option<&str>,
    key: &IdempotencyKey,
) -> Result<Option<Taken>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT view, fingerprint FROM jobs WHERE ifnull(caller, '') = ? AND idempotency_key = ?",
    )?;
    let row: Option<(String, Vec<u8>)> = statement
        .query_row(params![caller.unwrap_or_default(), key.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((view, fingerprint)) = row else { return Ok(None) };
    let view: JobView = serde_json::from_str(&view)?;
    Ok(Some(match fingerprint == key.fingerprint() {
        true => Taken::Known(Known { seed: seed(&view), job_id: view.job_id }),
        false => Taken::OtherBody(view.job_id),
    }))
}

fn seed(view: &JobView) -> u64 {
    view.parameters.get("seed").and_then(Value::as_u64).unwrap_or_default()
}

/// A job of the last process waits again, with new ids to tell events by.
fn take_up(connection: &Connection, job: &mut Restored) -> Result<(), StoreError> {
    let seq = job.journal.seq();
    if job.view.state == JobState::Running {
        let event = JobEvent::Narration { level: NarrationLevel::Info, message: AGAIN.into() };
        events::insert(connection, seq, &[(job.next_event, event)])?;
        job.next_event += 1;
        job.view.state = JobState::Queued;
        job.view.started_ms = None;
        job.view.progress = None;
    }
    job.reserved = job.next_event + BLOCK;
    connection
        .prepare_cached("UPDATE jobs SET state = 'queued', next_event = ?, view = ? WHERE seq = ?")?
        .execute(params![int(job.reserved), serde_json::to_string(&job.view)?, seq])?;
    job.events = events::of_job(connection, seq)?;
    Ok(())
}
