//! What this process may use of the machine: cores and memory, as affinity and control groups leave them.
//!
//! A container sees all cores and all memory of its host. What counts is smaller, and Linux tells it in files:
//! `/proc/self/status`, `/proc/meminfo` and the control groups (versions 1 and 2). Elsewhere only the number of
//! cores is known.

mod cgroup;
mod memory;
mod threads;

pub(crate) use memory::Bytes;
pub use memory::{Memory, available_memory, parse_bytes};
pub use threads::{Threads, available_threads};

use std::fs;
use std::path::Path;

/// The text of the file `path` under `root`; `None` where there is no such file.
fn read(root: &Path, path: &str) -> Option<String> {
    fs::read_to_string(root.join(path)).ok()
}

/// The text after `key` on its line: `Cpus_allowed_list: 0-3` is `0-3`.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim)
}

#[cfg(test)]
mod testing {
    use std::path::Path;

    /// A root directory that holds `files`.
    pub(super) fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new(""))).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }
}
