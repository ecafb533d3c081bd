//! Opening a store, for one worker at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rusqlite::Connection;

use super::{Inner, Open, Reserve, Store, StoreError, forget, int, room, schema};

/// The database in a data directory. SQLite puts its `-wal` and `-shm` beside it.
const DATABASE: &str = "jobs.sqlite3";
/// Who holds it locked has the directory. The lock goes with the process, however that ends.
const LOCK: &str = "worker.lock";
/// Pages after which the log is brought into the database.
const LOG_PAGES: u32 = 64;
/// Prepared statements that are kept: all that there are.
const STATEMENTS: usize = 64;

/// Makes the directory for the worker's user alone: prompts and pictures stand in it. One that is there stays as it is.
fn make(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

impl Store {
    /// A store that is gone with the process.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn in_memory() -> Result<Self, StoreError> {
        let open = Mutex::new(prepared(Connection::open_in_memory()?)?);
        Ok(Self(Arc::new(Inner { open, dir: None, reserve: Reserve::within(None), _lock: None })))
    }

    /// The store in this directory, which is made where it is missing.
    ///
    /// # Errors
    /// When the directory cannot be used, another worker has it open, a newer version of this program wrote it, or the disk
    /// is full and nothing is held in the directory for that.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let unusable = |source| StoreError::Directory { dir: dir.to_owned(), source };
        make(dir).map_err(unusable)?;
        let lock = lock(dir)?;
        let reserve = Reserve::within(Some(dir));
        let connected = || connect(dir).map_err(|error| room::looked_at(error, Some(dir)));
        let open = match connected() {
            Err(StoreError::Full) => {
                reserve.release();
                connected()?
            }
            outcome => outcome?,
        };
        let store = Self(Arc::new(Inner {
            open: Mutex::new(open),
            dir: Some(dir.to_owned()),
            reserve,
            _lock: Some(lock),
        }));
        store.fill_reserve();
        Ok(store)
    }

    /// Lets the store grow to about so many bytes and no further: then it is full, as with a full disk.
    ///
    /// # Errors
    /// When SQLite does not answer.
    pub fn limit_bytes(&self, bytes: u64) -> Result<(), StoreError> {
        let connection = &self.open_now().connection;
        let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        // 0 would ask, not set; what is there already stays.
        let pages = (int(bytes) / page.max(1)).max(1);
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
        Ok(())
    }
}

fn connect(dir: &Path) -> Result<Open, StoreError> {
    let connection = Connection::open(dir.join(DATABASE))?;
    // Asked for before there are tables: pages that are free can be given back to the disk.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // What stands in the log alone must find room in the database: it is never more than the reserve.
    connection.pragma_update_and_check(None, "wal_autocheckpoint", LOG_PAGES, |_| Ok(()))?;
    prepared(connection)
}

fn prepared(mut connection: Connection) -> Result<Open, StoreError> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "foreign_keys", true)?;
    // The disk of temporary files may be the one that is full.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    schema::migrate(&mut connection)?;
    let over = forget::over(&connection)?;
    Ok(Open { connection, over })
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let unusable = |source| StoreError::Directory { dir: dir.to_owned(), source };
    let path = dir.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut process = String::new();
            // For the message only.
            let _ = file.read_to_string(&mut process);
            let by = match process.trim() {
                "" => String::new(),
                id => format!(" (process {id})"),
            };
            return Err(StoreError::InUse { dir: dir.to_owned(), by });
        }
        Err(TryLockError::Error(source)) => return Err(unusable(source)),
    }
    // Who it is is for people; a disk too full for it is the database's to complain about.
    let _ =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(file)
}
