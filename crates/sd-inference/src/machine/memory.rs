//! How much memory this process can still get.

use std::fmt;
use std::path::Path;

use super::cgroup::Groups;
use super::{field, read};

/// Memory that can be had, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// Bytes that can be had without driving anything else out of memory.
    pub available: u64,
    /// The control group's limit in bytes, where that is what leaves the least.
    pub group_limit: Option<u64>,
}

/// The memory that this process can still get: what the system has, or less where a control group limits it.
///
/// `None` where the system does not tell, which is everywhere but on Linux.
pub fn available_memory() -> Option<Memory> {
    available(Path::new("/"))
}

fn available(root: &Path) -> Option<Memory> {
    let system = read(root, "proc/meminfo").and_then(|text| kilobytes(&text, "MemAvailable:"));
    let group = Groups::of(root, "memory").and_then(|groups| groups.memory_left());
    match (system, group) {
        (Some(system), Some((left, limit))) if left < system => {
            Some(Memory { available: left, group_limit: Some(limit) })
        }
        (None, Some((left, limit))) => Some(Memory { available: left, group_limit: Some(limit) }),
        (Some(available), _) => Some(Memory { available, group_limit: None }),
        (None, None) => None,
    }
}

/// The bytes of a line such as `MemAvailable:  1024 kB`.
fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let number: u64 = field(text, key)?.strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Bytes(self.available))?;
        match self.group_limit {
            Some(limit) => write!(f, " (below the control group's limit of {})", Bytes(limit)),
            None => Ok(()),
        }
    }
}

/// A number of bytes for people, in powers of 1000.
#[derive(Clone, Copy)]
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as f64;
        match self.0 {
            0..10_000_000 => write!(f, "{:.1} MB", bytes / 1e6),
            10_000_000..1_000_000_000 => write!(f, "{:.0} MB", bytes / 1e6),
            _ => write!(f, "{:.2} GB", bytes / 1e9),
        }
    }
}

/// A number of bytes with an optional unit: `800000000`, `800M`, `1.5GB`, `2GiB`.
///
/// `K`, `M`, `G` and `T` (with or without `B`) are powers of 1000, `KiB` and its kin powers of 1024.
///
/// # Errors
/// A message that says what is expected.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let expected = || format!("`{text}` is no number of bytes such as 800M, 1.5GB or 2GiB");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| expected())?;
    let unit = unit.trim().to_ascii_lowercase();
    let (letter, base) = match unit.strip_suffix("ib") {
        Some(letter) => (letter, 1024f64),
        None => (unit.strip_suffix('b').unwrap_or(&unit), 1000f64),
    };
    let power = ["", "k", "m", "g", "t"].iter().position(|known| *known == letter).ok_or_else(expected)?;
    Ok((number * base.powi(power as i32)) as u64)
}

#[cfg(test)]
mod tests {
    use super::super::testing::root;
    use super::*;

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:  4000 kB\nMemAvailable:    2000 kB\n");

    fn with_group(limit: &str) -> Memory {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", "35 24 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
            ("sys/fs/cgroup/memory.max", limit),
            ("sys/fs/cgroup/memory.current", "24000"),
        ];
        available(root(&files).path()).unwrap()
    }

    #[test]
    fn the_tighter_of_system_and_group_counts() {
        assert_eq!(with_group("max"), Memory { available: 2_048_000, group_limit: None });
        assert_eq!(with_group("1024000"), Memory { available: 1_000_000, group_limit: Some(1_024_000) });
        assert_eq!(with_group("99000000"), Memory { available: 2_048_000, group_limit: None });
        assert_eq!(available(root(&[]).path()), None);
    }

    #[test]
    fn memory_is_told_in_words() {
        let memory = Memory { available: 5_120_000_000, group_limit: Some(6_000_000_000) };
        assert_eq!(memory.to_string(), "5.12 GB (below the control group's limit of 6.00 GB)");
        assert_eq!(Bytes(8_100_000).to_string(), "8.1 MB");
        assert_eq!(Bytes(500_400_000).to_string(), "500 MB");
    }

    #[test]
    fn bytes_are_read_with_and_without_a_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("800", 800),
            ("800M", 800_000_000),
            ("1.5GB", 1_500_000_000),
            ("2 GiB", 2 << 30),
            ("3k", 3000),
            ("1t", 1_000_000_000_000),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1", "5 apples", "1..5G", "nan", "1e3"] {
            assert!(parse_bytes(text).is_err_and(|message| message.contains(text)), "{text}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_tells_its_memory() {
        let memory = available_memory().unwrap();
        assert!(memory.available > 1 << 20, "{memory:?}");
    }
}
