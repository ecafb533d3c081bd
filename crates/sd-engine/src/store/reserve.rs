//! Room on the disk that is taken beforehand.
//!
//! To forget a job is to write as well, and what is written stands in the log first and in the database after. A disk that
//! jobs have filled to the last block would stay full. So a file beside the database holds some room: it is emptied where jobs
//! are to be forgotten and there is no other room, and nothing new is taken until it is whole again. What comes with many
//! bytes takes room for their way from the log into the database before they are written.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::StoreError;
use super::room::is_lack_of_room;

/// The file, beside the database.
const FILE: &str = "worker.reserve";
/// What is always held: more than it takes to forget or to take up a few jobs, or to give some pages back.
const BYTES: u64 = 1 << 20;
/// How much is written at once. What is left up to the first of these that does not fit stays free.
const CHUNK: usize = 16 << 10;

/// The file that holds room.
#[derive(Debug)]
pub(super) struct Reserve {
    /// `None`: in memory, where nothing is held.
    path: Option<PathBuf>,
    /// Held for what is being written, beside what is always held.
    more: Mutex<u64>,
}

/// Room for something that is about to be written, until this is dropped.
#[derive(Debug)]
pub(super) struct Held<'a> {
    reserve: &'a Reserve,
    bytes: u64,
}

impl Reserve {
    /// For a store in this directory. Nothing is held yet.
    pub(super) fn within(dir: Option<&Path>) -> Self {
        Self { path: dir.map(|dir| dir.join(FILE)), more: Mutex::default() }
    }

    fn more(&self) -> MutexGuard<'_, u64> {
        self.more.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what is always held, as far as there is room.
    ///
    /// # Errors
    /// [`StoreError::Full`] where it is not whole then.
    pub(super) fn fill(&self) -> Result<(), StoreError> {
        self.reach(BYTES + *self.more())
    }

    /// Takes room for so many bytes more.
    pub(super) fn hold(&self, bytes: u64) -> Result<Held<'_>, StoreError> {
        *self.more() += bytes;
        // From here on it is given back, whatever happens.
        let held = Held { reserve: self, bytes };
        if bytes > 0 {
            self.fill()?;
        }
        Ok(held)
    }

    /// Gives all of it to whoever writes next.
    pub(super) fn release(&self) {
        self.cut(0);
    }

    fn reach(&self, bytes: u64) -> Result<(), StoreError> {
        let Some(path) = &self.path else { return Ok(()) };
        grow(path, bytes).map_err(|source| match is_lack_of_room(source.kind()) {
            true => StoreError::Full,
            false => StoreError::Directory { dir: path.parent().unwrap_or(path).to_owned(), source },
        })
    }

    fn cut(&self, bytes: u64) {
        let Some(path) = &self.path else { return };
        let cut = OpenOptions::new().append(true).open(path).and_then(|file| {
            match file.metadata()?.len() > bytes {
                true => file.set_len(bytes),
                false => Ok(()),
            }
        });
        match cut {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "the room that is held cannot be given back");
            }
            _ => {}
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            let mut more = self.reserve.more();
            *more -= self.bytes;
            self.reserve.cut(BYTES + *more);
        }
    }
}

fn grow(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    let mut left = bytes.saturating_sub(file.metadata()?.len());
    while left > 0 {
        let chunk = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        file.write_all(&[0; CHUNK][..chunk])?;
        left -= chunk as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_held_as_long_as_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::within(Some(dir.path()));
        let length = || std::fs::metadata(dir.path().join(FILE)).unwrap().len();
        reserve.fill().unwrap();
        assert_eq!(length(), BYTES);
        {
            let _first = reserve.hold(100_000).unwrap();
            let second = reserve.hold(5).unwrap();
            assert_eq!(length(), BYTES + 100_005);
            drop(second);
            assert_eq!(length(), BYTES + 100_000);
        }
        assert_eq!(length(), BYTES);
        reserve.release();
        assert_eq!(length(), 0);
        drop(reserve.hold(0).unwrap());
        assert_eq!(length(), 0, "who needs none takes none");
        drop(reserve.hold(1).unwrap());
        assert_eq!(length(), BYTES);
    }

    /// Writing to it fails as on a full disk, whoever asks.
    #[cfg(target_os = "linux")]
    #[test]
    fn where_there_is_no_room_nothing_is_held() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", dir.path().join(FILE)).unwrap();
        let reserve = Reserve::within(Some(dir.path()));
        assert!(matches!(reserve.fill(), Err(StoreError::Full)));
        assert!(matches!(reserve.hold(1), Err(StoreError::Full)));
        assert_eq!(*reserve.more(), 0);
        assert!(Reserve::within(None).hold(1).is_ok(), "there is none in memory");
    }
}
