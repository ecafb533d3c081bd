//! Files into the hub cache, laid out as `huggingface_hub` lays them out: contents under `blobs`, by their checksum;
//! `snapshots/COMMIT` with links to them; `refs` with the commit of each branch.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::{ATTEMPTS, Hub, Listing, header, is_plain, pause};
use crate::exit::Failure;

/// A file that the hub has.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    /// Its path in the repository.
    pub(crate) file: String,
    pub(super) url: String,
    /// sha256 of large files; git's sha1 of small ones.
    pub(super) etag: String,
    pub(crate) size: u64,
}

/// The place of one repository in the cache.
pub(crate) struct Cache {
    folder: PathBuf,
    locks: PathBuf,
}

impl Cache {
    /// For the repository whose folder is `folder`.
    pub(crate) fn new(folder: PathBuf) -> Self {
        let name = folder.file_name().unwrap_or_default();
        let locks = folder.parent().unwrap_or(Path::new("")).join(".locks").join(name);
        Self { folder, locks }
    }

    /// The folder of one commit.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    fn blob(&self, remote: &Remote) -> PathBuf {
        self.folder.join("blobs").join(&remote.etag)
    }

    /// Bytes of the file that are here already.
    pub(crate) fn present(&self, remote: &Remote) -> u64 {
        let size = |path: PathBuf| fs::metadata(path).map_or(0, |file| file.len());
        let whole = size(self.blob(remote));
        if whole == remote.size { whole } else { size(self.incomplete(remote)).min(remote.size) }
    }

    fn incomplete(&self, remote: &Remote) -> PathBuf {
        self.folder.join("blobs").join(format!("{}.incomplete", remote.etag))
    }

    /// Fetches what is missing of the file, checks it and links it into the snapshot.
    pub(crate) fn fetch(
        &self,
        hub: &Hub,
        listing: &Listing,
        remote: &Remote,
        bar: &ProgressBar,
    ) -> Result<(), Failure> {
        let at = |path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| Failure::failed(format!("{path}: {error}"))
        };
        let blob = self.blob(remote);
        for folder in [&self.locks, &self.folder.join("blobs")] {
            fs::create_dir_all(folder).map_err(at(folder))?;
        }
        // The lock that the Python tools take: nobody fetches the same file meanwhile.
        let lock_path = self.locks.join(format!("{}.lock", remote.etag));
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(at(&lock_path))?;
        lock.lock().map_err(at(&lock_path))?;
        if fs::metadata(&blob).map_or(true, |file| file.len() != remote.size) {
            let incomplete = self.incomplete(remote);
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&incomplete)
                .map_err(at(&incomplete))?;
            receive(hub, remote, &mut file, bar)?;
            if let Err(reason) = verify(&mut file, remote).map_err(at(&incomplete))? {
                // What is wrong stays wrong: the next attempt starts over.
                fs::remove_file(&incomplete).map_err(at(&incomplete))?;
                return Err(Failure::failed(format!("{}: {reason}; it was discarded", remote.file)));
            }
            file.sync_all().map_err(at(&incomplete))?;
            fs::rename(&incomplete, &blob).map_err(at(&blob))?;
        }
        self.link(listing, remote).map_err(at(&blob))
    }

    /// The file's place in the snapshot, as a relative link.
    fn link(&self, listing: &Listing, remote: &Remote) -> io::Result<()> {
        let place = self.snapshot(&listing.commit).join(&remote.file);
        let depth = remote.file.split('/').count() + 1;
        let mut target: PathBuf = std::iter::repeat_n("..", depth).collect();
        target.extend(["blobs", remote.etag.as_str()]);
        fs::create_dir_all(place.parent().unwrap_or(&self.folder))?;
        match fs::remove_file(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        link_or_copy(&target, &self.blob(remote), &place)
    }

    /// Makes `revision` mean the commit, once all its files are there.
    pub(crate) fn set_revision(&self, revision: &str, commit: &str) -> Result<(), Failure> {
        if !revision.split('/').all(is_plain) {
            return Err(Failure::refused(format!("`{revision}` cannot be the name of a branch")));
        }
        let path = self.folder.join("refs").join(revision);
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
            fs::write(&path, commit)
        };
        write().map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
    }
}

/// Makes `place` a link to `target`, which is where `blob` is seen from there.
#[cfg(unix)]
fn link_or_copy(target: &Path, _blob: &Path, place: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, place)
}

/// Makes `place` a copy of `blob`: links need rights here that not everybody has.
#[cfg(not(unix))]
fn link_or_copy(_target: &Path, blob: &Path, place: &Path) -> io::Result<()> {
    fs::copy(blob, place).map(drop)
}

/// Brings `file` to the size of `remote`, going on where it ends, as often as anything still arrives.
fn receive(hub: &Hub, remote: &Remote, file: &mut File, bar: &ProgressBar) -> Result<(), Failure> {
    let disk = |error: io::Error| Failure::failed(format!("{}: {error}", remote.file));
    let mut have = file.metadata().map_err(disk)?.len();
    if have > remote.size {
        file.set_len(0).map_err(disk)?;
        have = 0;
    }
    let mut failed = 0;
    while have < remote.size {
        let before = have;
        let problem = match some(hub, remote, file, &mut have, bar) {
            Ok(()) => None,
            Err(Problem::Network(problem)) => Some(problem),
            Err(Problem::Final(problem)) => return Err(problem),
        };
        if have > before {
            failed = 0;
            continue;
        }
        failed += 1;
        if failed == ATTEMPTS {
            let problem = problem.unwrap_or_else(|| "the connection ends early".into());
            return Err(Failure::failed(format!(
                "{}: {problem}; {have} of {} bytes are here, and the next attempt goes on from there",
                remote.file, remote.size
            )));
        }
        pause(failed);
    }
    Ok(())
}

/// Why no more of a file arrived.
enum Problem {
    /// It may work next time.
    Network(String),
    /// It will not.
    Final(Failure),
}

/// One request for the rest of the file.
fn some(
    hub: &Hub,
    remote: &Remote,
    file: &mut File,
    have: &mut u64,
    bar: &ProgressBar,
) -> Result<(), Problem> {
    let disk = |error: io::Error| Problem::Final(Failure::failed(format!("{}: {error}", remote.file)));
    let mut request = hub.request(hub.agent.get(&remote.url));
    if *have > 0 {
        request = request.header("range", format!("bytes={have}-"));
    }
    let mut response = request.call().map_err(|error| Problem::Network(error.to_string()))?;
    let status = response.status().as_u16();
    match status {
        200 => {}
        206 => {
            let range = header(response.headers(), "content-range").unwrap_or_default();
            if !range.starts_with(&format!("bytes {have}-")) {
                return Err(Problem::Network(format!("asked for bytes from {have}, got `{range}`")));
            }
        }
        401 | 403 | 404 | 410 => {
            return Err(Problem::Final(Failure::refused(format!(
                "{}: the hub answers {status}",
                remote.url
            ))));
        }
        other => return Err(Problem::Network(format!("the hub answers {other}"))),
    }
    if status == 200 && *have > 0 {
        // The server knows no ranges: all over again.
        bar.set_position(bar.position().saturating_sub(*have));
        file.set_len(0).map_err(disk)?;
        *have = 0;
    }
    file.seek(io::SeekFrom::Start(*have)).map_err(disk)?;
    let mut body = response.body_mut().as_reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = body.read(&mut buffer).map_err(|error| Problem::Network(error.to_string()))?;
        if count == 0 {
            return Ok(());
        }
        if *have + count as u64 > remote.size {
            return Err(Problem::Final(Failure::failed(format!(
                "{}: the hub promised {} bytes and sends more",
                remote.file, remote.size
            ))));
        }
        file.write_all(&buffer[..count]).map_err(disk)?;
        *have += count as u64;
        bar.inc(count as u64);
    }
}

/// Whether the whole file is what its checksum says; the inner error says what it is instead.
fn verify(file: &mut File, remote: &Remote) -> io::Result<Result<(), String>> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let is_hex = remote.etag.bytes().all(|byte| byte.is_ascii_hexdigit());
    file.rewind()?;
    let found = match remote.etag.len() {
        64 if is_hex => {
            let mut sha256 = Sha256::new();
            read_all(file, |bytes| sha256.update(bytes))?;
            hex(&sha256.finalize())
        }
        40 if is_hex => {
            let mut sha1 = Sha1::new();
            // As git hashes what it stores.
            sha1.update(format!("blob {}\0", remote.size));
            read_all(file, |bytes| sha1.update(bytes))?;
            hex(&sha1.finalize())
        }
        // Other servers' tags say nothing about the content.
        _ => return Ok(Ok(())),
    };
    Ok(match found == remote.etag.to_lowercase() {
        true => Ok(()),
        false => Err(format!("what arrived has the checksum {found}, but {} was promised", remote.etag)),
    })
}

fn read_all(file: &mut File, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            count => take(&buffer[..count]),
        }
    }
}
