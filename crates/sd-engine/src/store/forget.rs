//! Jobs that are over and not to be kept any longer.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::{Journal, Store, StoreError, Totals, uint};
use crate::job::unix_ms;
use crate::registry::Retention;

/// So many jobs are forgotten in one transaction.
const MANY: usize = 256;
/// So many where there is no room but what is held for it.
const FEW: usize = 8;

impl Store {
    /// Forgets one job.
    pub(crate) fn forget(&self, journal: &Journal) -> Result<(), StoreError> {
        self.in_need(|| {
            let connection = &self.open_now().connection;
            connection.prepare_cached("DELETE FROM jobs WHERE seq = ?")?.execute([journal.seq()])?;
            Ok(())
        })
    }

    /// Forgets jobs that are over, the oldest first, until all bounds hold, also with those that are `coming`: over, and not
    /// written down.
    pub(crate) fn evict(&self, retention: &Retention, coming: Totals) -> Result<(), StoreError> {
        match self.looked_at(self.forget_in_steps(retention, coming, MANY)) {
            Err(StoreError::Full) => self.in_need(|| self.forget_in_steps(retention, coming, FEW)),
            outcome => outcome,
        }
    }

    fn forget_in_steps(&self, retention: &Retention, coming: Totals, step: usize) -> Result<(), StoreError> {
        while self.forget_oldest(retention, coming, step)? {
            self.empty_log();
        }
        Ok(())
    }

    /// True if there may be more.
    fn forget_oldest(&self, retention: &Retention, coming: Totals, most: usize) -> Result<bool, StoreError> {
        let open = &mut *self.open_now();
        let mut left = open.over;
        if oldest_too_much(&open.connection, retention, left + coming)?.is_none() {
            return Ok(false);
        }
        let transaction = open.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut forgotten = 0;
        while forgotten < most
            && let Some((seq, bytes)) = oldest_too_much(&transaction, retention, left + coming)?
        {
            transaction.prepare_cached("DELETE FROM jobs WHERE seq = ?")?.execute([seq])?;
            left.jobs = left.jobs.saturating_sub(1);
            left.bytes = left.bytes.saturating_sub(bytes);
            forgotten += 1;
        }
        transaction.commit()?;
        open.over = left;
        Ok(forgotten == most)
    }
}

impl std::ops::Add for Totals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { jobs: self.jobs + other.jobs, bytes: self.bytes + other.bytes }
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
