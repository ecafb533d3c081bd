//! The control groups that bind this process, in both versions.

use std::fs;
use std::path::{Path, PathBuf};

use super::{field, read};

/// The folders of one controller's groups, from this process's own up to the highest that is visible here. All of
/// them bind: a limit may stand on any.
pub(super) struct Groups {
    version: Version,
    folders: Vec<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Groups {
    /// The groups of `controller` (`cpu`, `memory`); `None` where control groups are not mounted.
    ///
    /// `root` is `/`, or a folder that stands for it in tests.
    pub(super) fn of(root: &Path, controller: &str) -> Option<Self> {
        let memberships = read(root, "proc/self/cgroup")?;
        let mounts = read(root, "proc/self/mountinfo")?;
        // A controller that version 1 has taken is named in its line; all others are version 2's, which names none.
        let group = |wanted: &dyn Fn(&str) -> bool| {
            memberships.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let (controllers, path) = (parts.next()?, parts.next()?);
                wanted(controllers).then(|| path.to_owned())
            })
        };
        let one = group(&|controllers| controllers.split(',').any(|name| name == controller));
        let (version, path) = match one {
            Some(path) => (Version::One, path),
            None => (Version::Two, group(&str::is_empty)?),
        };
        let mount = mounts.lines().filter_map(Mount::parse).find(|mount| match version {
            Version::One => {
                mount.kind == "cgroup" && mount.options.split(',').any(|option| option == controller)
            }
            Version::Two => mount.kind == "cgroup2",
        })?;
        let top = root.join(mount.point.trim_start_matches('/'));
        // A container may see its own group mounted under a path that is the host's.
        let below = path.strip_prefix(mount.root).unwrap_or("").trim_start_matches('/');
        let mut folders = vec![top.clone()];
        for part in Path::new(below).components() {
            let next = folders.last().unwrap_or(&top).join(part);
            if next.is_dir() {
                folders.push(next);
            }
        }
        folders.reverse();
        Some(Self { version, folders })
    }

    /// The smallest CPU quota, in cores; `None` where there is none.
    pub(super) fn cpu_quota(&self) -> Option<f64> {
        let quota = |folder: &PathBuf| {
            let (quota, period) = match self.version {
                Version::One => (
                    fs::read_to_string(folder.join("cpu.cfs_quota_us")).ok()?,
                    fs::read_to_string(folder.join("cpu.cfs_period_us")).ok()?,
                ),
                Version::Two => {
                    let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
                    let (quota, period) = text.trim().split_once(' ')?;
                    (quota.to_owned(), period.to_owned())
                }
            };
            // No limit is -1 in version 1 and `max` in version 2.
            let (quota, period): (f64, f64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
            (quota > 0.0 && period > 0.0).then_some(quota / period)
        };
        self.folders.iter().filter_map(quota).min_by(f64::total_cmp)
    }

    /// The memory that is left below the tightest limit, in bytes, and that limit; `None` where there is none.
    pub(super) fn memory_left(&self) -> Option<(u64, u64)> {
        let left = |folder: &PathBuf| {
            let number = |name: &str| -> Option<u64> {
                fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok()
            };
            // Files in the cache count as used, but those long unread are given up before anything is refused.
            let cached = |key: &str| -> u64 {
                let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
                field(&stat, key).and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
            };
            let (limit, used, cached) = match self.version {
                Version::One => (
                    // No limit is a number close to 2^63.
                    number("memory.limit_in_bytes").filter(|limit| *limit < 1 << 60)?,
                    number("memory.usage_in_bytes")?,
                    cached("total_inactive_file "),
                ),
                Version::Two => (
                    // Above `high` a process is slowed down until it gives memory back, which ours cannot.
                    ["memory.max", "memory.high"].into_iter().filter_map(number).min()?,
                    number("memory.current")?,
                    cached("inactive_file "),
                ),
            };
            Some((limit.saturating_sub(used.saturating_sub(cached)), limit))
        };
        self.folders.iter().filter_map(left).min()
    }
}

/// One line of `/proc/self/mountinfo`.
struct Mount<'a> {
    /// The path inside the file system that is mounted.
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let mut system = system.split(' ');
        Some(Self {
            root: mount.next()?,
            point: mount.next()?,
            kind: system.next()?,
            options: system.nth(1)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::root;
    use super::*;

    const V2_MOUNT: &str = "35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

    fn quota(files: &[(&str, &str)]) -> Option<f64> {
        Groups::of(root(files).path(), "cpu").unwrap().cpu_quota()
    }

    fn memory(files: &[(&str, &str)]) -> Option<(u64, u64)> {
        Groups::of(root(files).path(), "memory").unwrap().memory_left()
    }

    #[test]
    fn version_2_counts_the_tightest_of_all_groups_above() {
        let files = [
            ("proc/self/cgroup", "0::/a.slice/b.service\n"),
            ("proc/self/mountinfo", V2_MOUNT),
            ("sys/fs/cgroup/a.slice/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/a.slice/b.service/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/a.slice/memory.max", "1000\n"),
            ("sys/fs/cgroup/a.slice/memory.current", "900\n"),
            ("sys/fs/cgroup/a.slice/memory.stat", "active_file 5\ninactive_file 300\n"),
            ("sys/fs/cgroup/a.slice/b.service/memory.max", "max\n"),
            ("sys/fs/cgroup/a.slice/b.service/memory.high", "800\n"),
            ("sys/fs/cgroup/a.slice/b.service/memory.current", "350\n"),
        ];
        assert_eq!(quota(&files), Some(1.5));
        // The slice leaves 1000 - (900 - 300), the service in it 800 - 350.
        assert_eq!(memory(&files), Some((400, 1000)));
    }

    #[test]
    fn version_1_has_a_hierarchy_for_each_controller() {
        let files = [
            ("proc/self/cgroup", "9:name=systemd:/\n4:memory:/box/one\n1:cpu,cpuacct:/box\n0::/\n"),
            (
                "proc/self/mountinfo",
                "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                 32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                 35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                 41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            ),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "25000\n"),
            ("sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "50000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "4096\n"),
            ("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "5000\n"),
            ("sys/fs/cgroup/memory/box/memory.usage_in_bytes", "6000\n"),
            ("sys/fs/cgroup/memory/box/memory.stat", "cache 0\ntotal_inactive_file 2500\n"),
        ];
        assert_eq!(quota(&files), Some(0.5));
        assert_eq!(memory(&files), Some((1500, 5000)));
    }

    /// As Docker mounts it on a host with version 1: the container's own group, under the host's path.
    #[test]
    fn a_mount_of_the_own_group_alone_is_its_top() {
        let files = [
            ("proc/self/cgroup", "1:cpu:/docker/abc\n"),
            ("proc/self/mountinfo", "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "300000\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(quota(&files), Some(3.0));
    }

    #[test]
    fn no_limit_is_none_and_no_control_group_too() {
        let files = [
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", V2_MOUNT),
            ("sys/fs/cgroup/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/memory.max", "max\n"),
            ("sys/fs/cgroup/memory.current", "1\n"),
        ];
        assert_eq!(quota(&files), None);
        assert_eq!(memory(&files), None);
        assert!(Groups::of(root(&[]).path(), "cpu").is_none());
    }
}
