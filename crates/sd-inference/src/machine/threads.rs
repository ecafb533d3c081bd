//! How many threads can really run at once.

use std::fmt;
use std::path::Path;
use std::thread;

use super::cgroup::Groups;
use super::{field, read};

/// The cores that this process may use, and why not more.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Threads {
    /// How many threads can run at once; at least 1.
    pub count: usize,
    /// Cores of the machine that are switched on.
    pub online: usize,
    /// Those of them that the scheduler may give to this process.
    pub allowed: usize,
    /// The processor time that control groups leave, in cores.
    pub quota: Option<f64>,
}

/// The cores that this process may use: those of its affinity, no more than its control groups' quota of processor
/// time rounded up.
///
/// `std::thread::available_parallelism` rounds the quota down; a worker with one and a half cores would run on one
/// of them alone.
pub fn available_threads() -> Threads {
    threads(Path::new("/"))
}

fn threads(root: &Path) -> Threads {
    let std = thread::available_parallelism().map_or(1, usize::from);
    let online = read(root, "sys/devices/system/cpu/online").and_then(|list| cores(&list));
    let allowed = read(root, "proc/self/status")
        .and_then(|status| cores(field(&status, "Cpus_allowed_list:")?))
        .map(|allowed| match &online {
            // The list may name cores that the machine could have and has not.
            Some(online) => allowed.iter().filter(|core| online.contains(core)).count(),
            None => allowed.len(),
        });
    let allowed = allowed.unwrap_or(std).max(1);
    let quota = Groups::of(root, "cpu").and_then(|groups| groups.cpu_quota());
    let count = quota.map_or(allowed, |quota| allowed.min(quota.ceil() as usize)).max(1);
    Threads { count, online: online.map_or(allowed, |online| online.len()).max(allowed), allowed, quota }
}

/// The numbers of a list such as `0-3,8`.
fn cores(list: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?);
    }
    Some(cores)
}

impl fmt::Display for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, online, allowed, quota } = *self;
        match quota {
            Some(quota) if count < allowed => {
                write!(f, "{count}: a CPU quota of {quota:.2} cores, of {allowed} that may be used")
            }
            _ if allowed < online => {
                write!(f, "{count}: the affinity of this process, of {online} cores here")
            }
            _ => write!(f, "{count}: every core here"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::root;
    use super::*;

    fn on(status: &str, online: &str, cpu_max: &str) -> Threads {
        let files = [
            ("proc/self/status", status),
            ("sys/devices/system/cpu/online", online),
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", "35 24 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
            ("sys/fs/cgroup/cpu.max", cpu_max),
        ];
        threads(root(&files).path())
    }

    #[test]
    fn threads_follow_affinity_and_quota() {
        for (allowed, online, cpu_max, count, said) in [
            ("0-7", "0-7", "max 100000", 8, "8: every core here"),
            // A machine that could take 128 cores and has 4.
            ("0-127", "0-3", "max 100000", 4, "4: every core here"),
            ("1,3-4", "0-7", "max 100000", 3, "3: the affinity of this process, of 8 cores here"),
            ("0-7", "0-7", "150000 100000", 2, "2: a CPU quota of 1.50 cores, of 8 that may be used"),
            ("0-7", "0-7", "5000 100000", 1, "1: a CPU quota of 0.05 cores, of 8 that may be used"),
            ("0-1", "0-7", "400000 100000", 2, "2: the affinity of this process, of 8 cores here"),
        ] {
            let threads = on(&format!("Name:\tx\nCpus_allowed_list:\t{allowed}\n"), online, cpu_max);
            assert_eq!((threads.count, threads.to_string().as_str()), (count, said));
        }
    }

    #[test]
    fn without_any_of_the_files_the_standard_library_is_asked() {
        let std = thread::available_parallelism().map_or(1, usize::from);
        assert_eq!(threads(root(&[]).path()).count, std);
    }

    /// On the machine at hand: never more than the standard library's count by more than the quota's rounding.
    #[test]
    fn the_machine_at_hand_agrees_with_the_standard_library() {
        let std = thread::available_parallelism().map_or(1, usize::from);
        let found = available_threads();
        assert!(
            found.count == std || (found.quota.is_some() && found.count == std + 1),
            "{found:?}, std {std}"
        );
    }
}
