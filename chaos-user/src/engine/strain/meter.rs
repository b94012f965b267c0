//! What the kernel counts of a cgroup.

use std::fs;
use std::path::{Path, PathBuf};

use super::place::{Directories, Version};
use crate::api::figures::Figures;

/// Where to read. Finding out once is cheaper than at every look.
#[derive(Clone, Debug)]
pub struct Meter {
    /// In the hierarchy that names the target: v2's has pressure, and processor time.
    main: PathBuf,
    /// The hierarchy of v1 that counts processor time.
    cpuacct: Option<PathBuf>,
    cpu: Option<(Version, PathBuf)>,
    memory: Option<(Version, PathBuf)>,
}

/// What the kernel has counted so far. What it does not count for this cgroup is 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Processor time, nanoseconds. v2: `cpu.stat`, v1: `cpuacct.usage`.
    pub cpu_ns: u64,
    /// Memory in use, bytes. v2: `memory.current`, v1: `memory.usage_in_bytes`.
    pub memory_bytes: u64,
    /// Periods in which it used up its quota (`cpu.stat`).
    pub throttled_periods: u64,
    /// How long it then waited, nanoseconds, summed over processors (`cpu.stat`).
    pub throttled_ns: u64,
    /// How often it was slowed down above `memory.high` (v2, `memory.events`).
    pub memory_high: u64,
    /// Processes killed for want of memory. v2: `memory.events`, with the cgroups below; v1:
    /// `memory.oom_control`, since 4.13.
    pub oom_kills: u64,
    /// Share of the last 10 s in which some task waited for a processor, memory, a disk, percent.
    pub pressure: Option<[f64; 3]>,
}

impl Meter {
    /// Of the cgroup with these directories.
    #[must_use]
    pub fn of(directories: &Directories) -> Self {
        let controller = |name: &str| {
            let (version, path) = directories.controller(name)?;
            Some((version, path.to_owned()))
        };
        let of_v1 = |(version, path)| (version == Version::V1).then_some(path);
        Self {
            main: directories.main().to_owned(),
            cpuacct: controller("cpuacct").and_then(of_v1),
            cpu: controller("cpu"),
            memory: controller("memory"),
        }
    }

    /// Looks.
    #[must_use]
    pub fn read(&self) -> Reading {
        let mut reading = Reading { pressure: self.pressure(), ..Reading::default() };
        let usage = self.cpuacct.as_ref().and_then(|path| number(&path.join("cpuacct.usage")));
        // v2 counts processor time in every cgroup, with the controller and without.
        let stat = || field(&self.main.join("cpu.stat"), "usage_usec").map(micros);
        reading.cpu_ns = usage.or_else(stat).unwrap_or(0);
        if let Some((version, path)) = &self.cpu {
            let text = fs::read_to_string(path.join("cpu.stat")).unwrap_or_default();
            let of = |name| field_of(&text, name).unwrap_or(0);
            reading.throttled_periods = of("nr_throttled");
            reading.throttled_ns = match version {
                Version::V1 => of("throttled_time"),
                Version::V2 => micros(of("throttled_usec")),
            };
        }
        match &self.memory {
            Some((Version::V1, path)) => {
                reading.memory_bytes = number(&path.join("memory.usage_in_bytes")).unwrap_or(0);
            }
            Some((Version::V2, path)) => {
                reading.memory_bytes = number(&path.join("memory.current")).unwrap_or(0);
                reading.memory_high = field(&path.join("memory.events"), "high").unwrap_or(0);
            }
            None => {}
        }
        reading.oom_kills = self.oom_kills();
        reading
    }

    /// Processes killed for want of memory so far.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let file = match &self.memory {
            Some((Version::V1, path)) => path.join("memory.oom_control"),
            Some((Version::V2, path)) => path.join("memory.events"),
            None => return 0,
        };
        field(&file, "oom_kill").unwrap_or(0)
    }

    fn pressure(&self) -> Option<[f64; 3]> {
        let of = |name: &str| {
            let text = fs::read_to_string(self.main.join(name)).ok()?;
            some_of_10_s(&text)
        };
        Some([of("cpu.pressure")?, of("memory.pressure")?, of("io.pressure")?])
    }
}

impl Reading {
    /// Writes what has been counted since `start` to the figures of a strain.
    pub fn since(&self, start: &Self, figures: &mut Figures) {
        let seconds = |ns: u64| ns as f64 / 1e9;
        figures.cgroup_cpu_seconds = seconds(self.cpu_ns.saturating_sub(start.cpu_ns));
        figures.cgroup_memory_bytes = self.memory_bytes;
        figures.throttled_periods = self.throttled_periods.saturating_sub(start.throttled_periods);
        figures.throttled_seconds = seconds(self.throttled_ns.saturating_sub(start.throttled_ns));
        figures.memory_high_events = self.memory_high.saturating_sub(start.memory_high);
        figures.oom_kills = self.oom_kills.saturating_sub(start.oom_kills);
        figures.pressure = self.pressure;
    }
}

fn micros(micros: u64) -> u64 {
    micros.saturating_mul(1000)
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn field(file: &Path, name: &str) -> Option<u64> {
    field_of(&fs::read_to_string(file).ok()?, name)
}

/// The number after a name at the beginning of a line.
fn field_of(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// `some avg10=1.23 avg60=…`
fn some_of_10_s(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some avg10="))?;
    some.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_whole_words() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(field_of(text, "oom_kill"), Some(3));
        assert_eq!(field_of("low 0\nhigh 12\nmax 4\n", "high"), Some(12));
        assert_eq!(field_of("nr_periods 7\n", "nr_throttled"), None);
    }

    #[test]
    fn pressure_is_that_of_some_task() {
        let text = "some avg10=1.25 avg60=0.50 avg300=0.00 total=9\nfull avg10=7.00 avg60=0\n";
        assert_eq!(some_of_10_s(text), Some(1.25));
        assert_eq!(some_of_10_s(""), None);
    }

    fn meter(path: &Path, version: Version) -> Meter {
        let both = Some((version, path.to_owned()));
        Meter { main: path.into(), cpuacct: None, cpu: both.clone(), memory: both }
    }

    fn file(directory: &Path, name: &str, text: &str) {
        fs::write(directory.join(name), text).unwrap();
    }

    #[test]
    fn v2_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        file(at, "cpu.stat", "usage_usec 1500\nnr_periods 9\nnr_throttled 4\nthrottled_usec 70\n");
        file(at, "memory.current", "4096\n");
        file(at, "memory.events", "low 0\nhigh 5\nmax 6\noom 2\noom_kill 1\noom_group_kill 0\n");
        for name in ["cpu", "memory", "io"] {
            file(at, &format!("{name}.pressure"), "some avg10=2.00 avg60=0.00\n");
        }
        let reading = meter(at, Version::V2).read();
        let expected = Reading {
            cpu_ns: 1_500_000,
            memory_bytes: 4096,
            throttled_periods: 4,
            throttled_ns: 70_000,
            memory_high: 5,
            oom_kills: 1,
            pressure: Some([2.0; 3]),
        };
        assert_eq!(reading, expected);
    }

    #[test]
    fn v1_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        file(at, "cpuacct.usage", "1500000\n");
        file(at, "cpu.stat", "nr_periods 9\nnr_throttled 4\nthrottled_time 70000\n");
        file(at, "memory.usage_in_bytes", "8192\n");
        file(at, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
        let cpuacct = Some(at.to_owned());
        let reading = Meter { cpuacct, ..meter(at, Version::V1) }.read();
        let expected = Reading {
            cpu_ns: 1_500_000,
            memory_bytes: 8192,
            throttled_periods: 4,
            throttled_ns: 70_000,
            oom_kills: 2,
            ..Reading::default()
        };
        assert_eq!(reading, expected);
    }

    #[test]
    fn sums_count_from_the_start() {
        let start = Reading { cpu_ns: 5_000_000_000, oom_kills: 2, ..Reading::default() };
        let now =
            Reading { cpu_ns: 7_500_000_000, oom_kills: 3, memory_bytes: 10, ..Reading::default() };
        let mut figures = Figures::default();
        now.since(&start, &mut figures);
        assert_eq!(figures.cgroup_cpu_seconds, 2.5);
        assert_eq!((figures.oom_kills, figures.cgroup_memory_bytes), (1, 10));
    }

    #[test]
    fn a_cgroup_that_has_vanished_reads_as_nothing() {
        let reading = meter(Path::new("/no/such/cgroup"), Version::V2).read();
        assert_eq!(reading, Reading::default());
    }
}
