//! What the figures were measured on, and what else it was doing. Read from `/proc`: elsewhere little is known.

use std::fs;
use std::process::Command;

/// The machine and the state of the repository.
#[derive(Debug)]
pub(super) struct Machine {
    /// Year-month-day.
    pub(super) date: String,
    processor: String,
    cores: usize,
    memory_gib: Option<f64>,
    commit: String,
}

impl Machine {
    pub(super) fn this() -> Self {
        Self {
            date: first_line("date", &["-u", "+%Y-%m-%d"]),
            processor: field("/proc/cpuinfo", "model name")
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: field("/proc/meminfo", "MemTotal")
                .and_then(|text| text.trim_end_matches("kB").trim().parse::<f64>().ok())
                .map(|kilobytes| kilobytes / f64::from(1 << 20)),
            commit: first_line("git", &["describe", "--always", "--dirty"]),
        }
    }

    pub(super) fn text(&self) -> String {
        let Self { processor, cores, commit, .. } = self;
        let plural = if *cores == 1 { "" } else { "s" };
        let memory = self.memory_gib.map(|gib| format!(", {gib:.0} GiB")).unwrap_or_default();
        format!("{cores} core{plural} of {processor}{memory}, {}, commit {commit}", std::env::consts::OS)
    }
}

/// The value of the first `name: value` line of a file.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// What a program prints, or `unknown`.
fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(crate::workspace::root()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

/// Processor time spent so far, in ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Busy {
    /// All cores, idle or not.
    all: u64,
    /// Of that not idle, or taken by other machines on the same processor.
    busy: u64,
    /// Of that by programs which this one started and waited for.
    ours: u64,
}

impl Busy {
    pub(super) fn now() -> Option<Self> {
        Self::read(&fs::read_to_string("/proc/stat").ok()?, &fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// From `cpu user nice system idle iowait irq softirq steal ...` and the fields of proc_pid_stat(5), of which cutime
    /// and cstime are the 16th and 17th. The second field is a name in parentheses that may hold spaces.
    fn read(all: &str, own: &str) -> Option<Self> {
        let numbers = |text: &str| -> Vec<u64> {
            text.split_whitespace().map_while(|word| word.parse().ok()).collect()
        };
        let all = numbers(all.lines().next()?.strip_prefix("cpu")?);
        let (idle, all) = (all.get(3)? + all.get(4)?, all.iter().take(8).sum::<u64>());
        let own: Vec<&str> = own.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |field: usize| own.get(field - 3)?.parse::<u64>().ok();
        Some(Self { all, busy: all - idle, ours: ticks(16)? + ticks(17)? })
    }

    /// The share of all cores that was busy since then with anything but the programs started and ended meanwhile.
    pub(super) fn others_since(self) -> Option<f64> {
        self.others_until(Self::now()?)
    }

    fn others_until(self, now: Self) -> Option<f64> {
        let all = (now.all - self.all) as f64;
        let others = (now.busy - self.busy) as f64 - (now.ours - self.ours) as f64;
        (all > 0.0).then(|| (others / all).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_take_is_the_rest() {
        let own = |children: u64| format!("7 (x task (1)) R 1 2 3 4 5 6 7 8 9 10 100 50 {children} 20 0 0 1");
        let before = Busy::read("cpu  1000 0 200 3000 100 5 5 90 40 0\ncpu0 1 2", &own(500)).unwrap();
        let after = Busy::read("cpu  1700 0 250 3160 100 5 5 180 40 0\ncpu0 1 2", &own(1140)).unwrap();
        // 1000 ticks passed, 840 of them busy, 640 of these ours.
        assert_eq!(before.others_until(after), Some(0.2));
    }

    #[test]
    fn this_machine_is_named() {
        let text = Machine::this().text();
        assert!(text.contains("core") && text.contains("commit"), "{text}");
    }
}
