//! What was accepted, what it told and what came out: in SQLite, on disk or in memory.
//!
//! A job is written down before anyone is told that it was accepted, when it starts, and when it is over; its end, its
//! whole story and its images are one transaction. On disk each of them survives the end of the process and of the
//! machine (WAL, `synchronous=FULL`). Steps write nothing: their events are in memory until the end, and the ids that
//! they get are reserved beforehand, so that no id is given out twice whatever happens.

mod error;
mod events;
mod forget;
mod jobs;
mod journal;
mod list;
mod open;
mod reserve;
mod restore;
mod room;
mod rows;
mod schema;
mod space;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

pub use error::StoreError;
pub(crate) use events::{Events, weight};
pub(crate) use jobs::{Known, NewJob, Taken};
pub(crate) use journal::Journal;
pub use list::{JobPage, JobQuery, Order};
use reserve::Reserve;
pub(crate) use restore::Restored;

/// The jobs that are kept. Cloning shares it.
///
/// Its calls wait for the disk: async code makes them on a blocking thread.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    open: Mutex<Open>,
    /// Where it outlives the process; `None`: it does not.
    dir: Option<PathBuf>,
    reserve: Reserve,
    /// Held locked as long as the store is open.
    _lock: Option<std::fs::File>,
}

impl Store {
    /// Whether its jobs outlive the process.
    pub fn is_durable(&self) -> bool {
        self.0.dir.is_some()
    }

    /// A transaction that a panic cut short was rolled back when it was dropped: the connection is whole.
    fn open_now(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    /// The jobs that are over, counted along.
    over: Totals,
}

/// A number of jobs and what they weigh.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) jobs: u64,
    pub(crate) bytes: u64,
}

/// SQLite's integers are signed. Times, ids and sizes are far from where that matters.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
