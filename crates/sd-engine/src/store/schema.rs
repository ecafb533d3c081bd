//! The tables, and how older ones become the newest.

use rusqlite::Connection;

use super::StoreError;

/// One entry for each version of the schema: what makes it of the version before. Entries are never changed, only added.
const MIGRATIONS: &[&str] = &[
    // `seq` is the order of acceptance. `view` is the job as clients see it, as it was last written down; the columns
    // beside it are what is searched by. `request` is the resolved operation, until the job is over. `next_event` is
    // the first event id that was certainly never told to anyone.
    "CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL,
        operation TEXT NOT NULL,
        model TEXT NOT NULL,
        caller TEXT,
        idempotency_key TEXT,
        fingerprint BLOB,
        created_ms INTEGER NOT NULL,
        finished_ms INTEGER,
        next_event INTEGER NOT NULL,
        bytes INTEGER NOT NULL DEFAULT 0,
        view TEXT NOT NULL,
        request TEXT
    ) STRICT;
    CREATE UNIQUE INDEX jobs_by_key ON jobs (ifnull(caller, ''), idempotency_key)
        WHERE idempotency_key IS NOT NULL;
    CREATE INDEX jobs_by_end ON jobs (finished_ms, seq) WHERE finished_ms IS NOT NULL;
    CREATE INDEX jobs_not_over ON jobs (seq) WHERE finished_ms IS NULL;
    CREATE TABLE events (
        job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
        id INTEGER NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (job, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE inputs (
        job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
        path TEXT NOT NULL,
        bytes BLOB NOT NULL,
        PRIMARY KEY (job, path)
    ) STRICT;
    CREATE TABLE images (
        job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
        event INTEGER NOT NULL,
        n INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        PRIMARY KEY (job, event, n)
    ) STRICT;",
];

/// Brings the tables to the newest version, each step as a whole or not at all.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = MIGRATIONS.len();
    let done = usize::try_from(found).unwrap_or(usize::MAX);
    if done > known {
        return Err(StoreError::Newer { found, known: known as i64 });
    }
    for (migration, version) in MIGRATIONS.iter().zip(1i64..).skip(done) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_of_a_newer_version_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        migrate(&mut connection).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        let refused = migrate(&mut connection).unwrap_err();
        assert!(matches!(refused, StoreError::Newer { found: 99, .. }), "{refused}");
    }
}
