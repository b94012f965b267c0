//! From limits to numbers in files of a cgroup. Reads, and writes nothing.
//!
//! What the files mean: the kernel's `Documentation/admin-guide/cgroup-v2.rst` and, for v1,
//! `cgroup-v1/` and `scheduler/sched-bwc.rst` beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::super::place::{Directories, Version};
use super::disks::{self, Disk};
use super::knob::{FREEZER, FROZEN, Knob, Setting};
use super::refuse;
use crate::engine::error::EngineError;
use crate::plan::strain::{Amount, CpuQuota, IoLimit, Limits};

/// Numbers to be written, and what people should know about them.
#[derive(Debug, Default, PartialEq)]
pub struct Settings {
    /// In the order in which they are written.
    pub all: Vec<Setting>,
    /// One sentence each.
    pub notes: Vec<String>,
}

/// The least quota per period that the kernel takes, microseconds (`min_cfs_quota_period`).
const LEAST_QUOTA_US: u64 = 1000;
/// One more than this is no number of tasks to the kernel (`PID_MAX_LIMIT`).
const MOST_PIDS: u64 = 4 * 1024 * 1024;

/// What limits come to in these directories.
///
/// # Errors
/// [`EngineError::Unsupported`] with the field's name where a controller or a file is missing,
/// [`EngineError::Gone`] when the cgroup vanishes meanwhile.
pub fn settings(directories: &Directories, limits: &Limits) -> Result<Settings, EngineError> {
    let mut found = Settings::default();
    if let Some(quota) = limits.cpu {
        let (version, directory) = refuse::controller(directories, "cpu", "cpu.quota")?;
        found.cpu(version, directory, quota)?;
    }
    if let Some(amount) = limits.memory_high {
        let (version, directory) = refuse::controller(directories, "memory", "memory.high")?;
        found.memory_high(version, directory, amount)?;
    }
    if !limits.io.is_empty() {
        let (version, directory) = refuse::controller(directories, "io", "io")?;
        found.io(version, directory, &limits.io, Path::new("/sys"))?;
    }
    if let Some(most) = limits.pids_max {
        let (_, directory) = refuse::controller(directories, "pids", "pids.max")?;
        found.pids_max(directory, most)?;
    }
    if limits.freeze {
        found.freeze(directories)?;
    }
    Ok(found)
}

impl Settings {
    fn add(&mut self, knob: Knob, field: &'static str, after: String) -> Result<(), EngineError> {
        let before = value(&knob, field)?;
        self.all.push(Setting { knob, field, before, after });
        Ok(())
    }

    fn cpu(
        &mut self,
        version: Version,
        directory: &Path,
        quota: CpuQuota,
    ) -> Result<(), EngineError> {
        const FIELD: &str = "cpu.quota";
        let (file, now) = match version {
            Version::V2 => ("cpu.max", value(&knob(directory, "cpu.max", FIELD)?, FIELD)?),
            Version::V1 => {
                let part = |file| value(&knob(directory, file, FIELD)?, FIELD);
                let (quota, period) = (part("cpu.cfs_quota_us")?, part("cpu.cfs_period_us")?);
                ("cpu.cfs_quota_us", format!("{quota} {period}"))
            }
        };
        let mut words = now.split_whitespace();
        // "max" of v2 and -1 of v1 are no numbers without a sign.
        let own = words.next().and_then(|word| word.parse::<u64>().ok());
        let period: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(100_000);
        let whole = match (quota, own) {
            (CpuQuota::PercentOfOne(percent), _) => percent / 100.0 * period as f64,
            (CpuQuota::PercentOfLimit(percent), Some(own)) => percent / 100.0 * own as f64,
            (CpuQuota::PercentOfLimit(percent), None) => {
                percent / 100.0 * period as f64 * processors() as f64
            }
        };
        let us = whole.round() as u64;
        if us < LEAST_QUOTA_US {
            self.notes.push(format!(
                "cpu.quota: the kernel's least is 1 ms of processor time per period, which is {} % \
                 of a processor at this period of {period} us; that is set in place of {:.3} %",
                LEAST_QUOTA_US as f64 / period as f64 * 100.0,
                whole / period as f64 * 100.0,
            ));
        }
        let us = us.max(LEAST_QUOTA_US);
        let after = match version {
            Version::V2 => format!("{us} {period}"),
            Version::V1 => us.to_string(),
        };
        self.add(knob(directory, file, FIELD)?, FIELD, after)
    }

    fn memory_high(
        &mut self,
        version: Version,
        directory: &Path,
        amount: Amount,
    ) -> Result<(), EngineError> {
        const FIELD: &str = "memory.high";
        if version == Version::V1 {
            return Err(EngineError::Unsupported {
                mechanism: FIELD,
                reason: "the memory controller of this host is cgroup v1, which has no memory.high"
                    .into(),
                way_out: "use a host with cgroup v2 only \
                          (systemd.unified_cgroup_hierarchy=1), or StressChaos for memory",
            });
        }
        let share = |percent: f64, of: u64| (percent / 100.0 * of as f64) as u64;
        let bytes = match amount {
            Amount::Bytes(bytes) => bytes,
            Amount::PercentOfNode(percent) => share(percent, node_memory()?),
            Amount::PercentOfLimit(percent) => share(percent, memory_limit(directory)?),
        };
        let used = fs::read_to_string(directory.join("memory.current")).unwrap_or_default();
        if let Some(used) = used.trim().parse::<u64>().ok().filter(|used| *used > bytes) {
            self.notes.push(format!(
                "memory.high is {bytes} bytes and the cgroup uses {used} bytes already: the kernel \
                 reclaims and slows it down until it is below"
            ));
        }
        self.add(knob(directory, FIELD, FIELD)?, FIELD, bytes.to_string())
    }

    fn pids_max(&mut self, directory: &Path, most: u64) -> Result<(), EngineError> {
        const FIELD: &str = "pids.max";
        if most > MOST_PIDS {
            return Err(EngineError::Unsupported {
                mechanism: FIELD,
                reason: format!("{most} is more than the kernel takes, which is {MOST_PIDS}"),
                way_out: "choose a lower number",
            });
        }
        let now = fs::read_to_string(directory.join("pids.current")).unwrap_or_default();
        if let Some(now) = now.trim().parse::<u64>().ok().filter(|now| *now > most) {
            self.notes.push(format!(
                "pids.max is {most} and the cgroup has {now} tasks already: they go on, and no new \
                 one can start"
            ));
        }
        self.add(knob(directory, FIELD, FIELD)?, FIELD, most.to_string())
    }

    fn io(
        &mut self,
        version: Version,
        directory: &Path,
        limits: &[IoLimit],
        sys: &Path,
    ) -> Result<(), EngineError> {
        if version == Version::V1 {
            reads_only(limits)?;
        }
        // A disk's own limit counts before that of every disk.
        let (some, every): (Vec<_>, Vec<_>) = limits.iter().partition(|l| l.device.is_some());
        let mut wanted: BTreeMap<(Disk, usize), u64> = BTreeMap::new();
        for limit in every.into_iter().chain(some) {
            let disks = match &limit.device {
                Some(device) => vec![disks::named(sys, device, &mut self.notes)?],
                None => disks::all(sys)?,
            };
            for disk in disks {
                for (at, rate) in rates(limit).into_iter().enumerate() {
                    if let Some(rate) = rate {
                        wanted.insert((disk.clone(), at), rate);
                    }
                }
            }
        }
        for ((disk, at), rate) in wanted {
            let Some(rated) = RATES.get(at) else { continue };
            if rate == 0 {
                return Err(EngineError::Unsupported {
                    mechanism: rated.field,
                    reason: "0 is no rate to the kernel".into(),
                    way_out: "choose at least 1; freeze: true stops the target altogether",
                });
            }
            let knob = match version {
                Version::V2 => {
                    knob(directory, "io.max", rated.field)?.of_device(&disk.number, Some(rated.v2))
                }
                Version::V1 => {
                    knob(directory, rated.v1, rated.field)?.of_device(&disk.number, None)
                }
            };
            self.add(knob, rated.field, rate.to_string())?;
        }
        Ok(())
    }

    fn freeze(&mut self, directories: &Directories) -> Result<(), EngineError> {
        const FIELD: &str = "freeze";
        const V2: &str = "cgroup.freeze";
        let main = directories.main();
        // v2's own comes first where there are both: what it freezes can still be killed.
        let has_v1 = directories.is_v1_alone() || directories.controller("freezer").is_some();
        let (directory, file, after) = if has_v1 && !main.join(V2).exists() {
            (refuse::controller(directories, "freezer", FIELD)?.1, FREEZER, FROZEN)
        } else {
            (main, V2, "1")
        };
        let knob = knob(directory, file, FIELD)?;
        self.add(knob, FIELD, after.into())?;
        if self.all.last().is_some_and(|setting| setting.before == after) {
            self.notes.push(format!(
                "{} is frozen by somebody else already, and stays so",
                directory.display()
            ));
        }
        Ok(())
    }
}

/// One of the four rates of a disk.
struct Rate {
    field: &'static str,
    v2: &'static str,
    v1: &'static str,
    is_write: bool,
}

const RATES: [Rate; 4] = [
    Rate { field: "io.readBps", v2: "rbps", v1: "blkio.throttle.read_bps_device", is_write: false },
    Rate {
        field: "io.writeBps",
        v2: "wbps",
        v1: "blkio.throttle.write_bps_device",
        is_write: true,
    },
    Rate {
        field: "io.readIops",
        v2: "riops",
        v1: "blkio.throttle.read_iops_device",
        is_write: false,
    },
    Rate {
        field: "io.writeIops",
        v2: "wiops",
        v1: "blkio.throttle.write_iops_device",
        is_write: true,
    },
];

/// Refuses writes in v1, where they leave the page cache through the kernel's own threads, in the
/// root.
fn reads_only(limits: &[IoLimit]) -> Result<(), EngineError> {
    let all = limits.iter().flat_map(|limit| RATES.iter().zip(rates(limit)));
    let mut written = all.filter(|(rated, rate)| rated.is_write && rate.is_some());
    let Some((rated, _)) = written.next() else { return Ok(()) };
    Err(EngineError::Unsupported {
        mechanism: rated.field,
        reason:
            "the disk controller of this host is cgroup v1 (blkio), which limits direct writes \
                 and not those through the page cache"
                .into(),
        way_out: "use a host with cgroup v2 only (systemd.unified_cgroup_hierarchy=1), or limit \
                  reads",
    })
}

/// In the order of [`RATES`]. The kernel keeps operations per second in 32 bits.
fn rates(limit: &IoLimit) -> [Option<u64>; 4] {
    let iops = |rate: Option<u64>| rate.map(|rate| rate.min(u64::from(u32::MAX)));
    [limit.read_bps, limit.write_bps, iops(limit.read_iops), iops(limit.write_iops)]
}

/// A number of a file that must be there.
fn knob(directory: &Path, file: &str, field: &'static str) -> Result<Knob, EngineError> {
    let gone = |_| EngineError::Gone { what: directory.display().to_string() };
    let knob = Knob::whole(directory, file).map_err(gone)?;
    if directory.join(file).exists() {
        return Ok(knob);
    }
    Err(refuse::no_file(directory, file, field))
}

fn value(knob: &Knob, field: &'static str) -> Result<String, EngineError> {
    let read = knob.read();
    let read = read.map_err(|e| EngineError::os(format!("read {} ({field})", knob.describe()), e));
    read?.ok_or_else(|| EngineError::Gone { what: knob.directory.display().to_string() })
}

/// Processors that are online.
fn processors() -> i64 {
    // SAFETY: plain call.
    unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }.max(1)
}

/// Memory of the node, bytes.
fn node_memory() -> Result<u64, EngineError> {
    const FILE: &str = "/proc/meminfo";
    let text = fs::read_to_string(FILE).map_err(|e| EngineError::os(format!("read {FILE}"), e))?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| EngineError::bpf(format!("read {FILE}"), "it has no MemTotal"))
}

/// The lowest `memory.max` of a cgroup and of those above it; the node's memory where there is
/// none.
fn memory_limit(directory: &Path) -> Result<u64, EngineError> {
    let maxima = directory.ancestors().map(|one| fs::read_to_string(one.join("memory.max")));
    // The root has no such file.
    let numbers = maxima.map_while(Result::ok).filter_map(|text| text.trim().parse::<u64>().ok());
    Ok(numbers.min().unwrap_or(u64::MAX).min(node_memory()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = directory.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        directory
    }

    fn cpu(version: Version, files: &[(&str, &str)], quota: CpuQuota) -> Settings {
        let mut settings = Settings::default();
        settings.cpu(version, directory(files).path(), quota).unwrap();
        settings
    }

    fn written(settings: &Settings) -> Vec<(&str, &str, &str)> {
        let all = settings.all.iter();
        all.map(|s| (s.knob.file.as_str(), s.before.as_str(), s.after.as_str())).collect()
    }

    #[test]
    fn a_quota_keeps_the_period() {
        let one = CpuQuota::PercentOfOne(20.0);
        let set = cpu(Version::V2, &[("cpu.max", "max 50000\n")], one);
        assert_eq!(written(&set), [("cpu.max", "max 50000", "10000 50000")]);
        let v1 = [("cpu.cfs_quota_us", "-1\n"), ("cpu.cfs_period_us", "100000\n")];
        assert_eq!(written(&cpu(Version::V1, &v1, one)), [("cpu.cfs_quota_us", "-1", "20000")]);
    }

    #[test]
    fn a_share_of_the_limit_is_of_the_quota_or_of_all_processors() {
        let half = CpuQuota::PercentOfLimit(50.0);
        let set = cpu(Version::V2, &[("cpu.max", "25000 100000\n")], half);
        assert_eq!(written(&set), [("cpu.max", "25000 100000", "12500 100000")]);
        let set = cpu(Version::V2, &[("cpu.max", "max 100000\n")], half);
        assert_eq!(set.all[0].after, format!("{} 100000", processors() * 50_000));
    }

    #[test]
    fn a_quota_below_a_millisecond_is_one_and_that_is_said() {
        let set = cpu(Version::V2, &[("cpu.max", "max 100000\n")], CpuQuota::PercentOfOne(0.5));
        assert_eq!(set.all[0].after, "1000 100000");
        assert!(set.notes[0].contains("1 % of a processor") && set.notes[0].contains("0.500 %"));
        let set = cpu(Version::V2, &[("cpu.max", "max 100000\n")], CpuQuota::PercentOfOne(1.0));
        assert_eq!((set.all[0].after.as_str(), set.notes.len()), ("1000 100000", 0));
    }

    #[test]
    fn memory_high_below_what_is_used_is_said_with_both_numbers() {
        let files = [("memory.high", "max\n"), ("memory.current", "52428800\n")];
        let cgroup = directory(&files);
        let mut set = Settings::default();
        set.memory_high(Version::V2, cgroup.path(), Amount::Bytes(10_485_760)).unwrap();
        assert_eq!(written(&set), [("memory.high", "max", "10485760")]);
        assert!(set.notes[0].contains("10485760") && set.notes[0].contains("52428800"));
        let refused = set.memory_high(Version::V1, cgroup.path(), Amount::Bytes(1));
        assert!(refused.unwrap_err().to_string().starts_with("memory.high: "));
    }

    #[test]
    fn a_share_of_the_memory_limit_is_of_the_lowest_one() {
        let files = [("memory.max", "8388608\n"), ("pod/memory.max", "max\n")];
        let above = directory(&files);
        assert_eq!(memory_limit(&above.path().join("pod")).unwrap(), 8_388_608);
        let free = directory(&[("memory.max", "max\n")]);
        assert_eq!(memory_limit(free.path()).unwrap(), node_memory().unwrap());
    }

    #[test]
    fn a_disk_by_name_counts_before_every_disk() {
        let sys = directory(&[
            ("block/sda/dev", "8:0\n"),
            ("block/sda/size", "100\n"),
            ("block/sdb/dev", "8:16\n"),
            ("block/sdb/size", "100\n"),
            ("dev/block/8:16/size", "100\n"),
        ]);
        let cgroup = directory(&[("io.max", "8:0 rbps=max wbps=9 riops=max wiops=max\n")]);
        let every = IoLimit { read_bps: Some(1000), write_bps: Some(5), ..IoLimit::default() };
        let one =
            IoLimit { device: Some("8:16".into()), read_bps: Some(2000), ..IoLimit::default() };
        let mut set = Settings::default();
        set.io(Version::V2, cgroup.path(), &[every.clone(), one], sys.path()).unwrap();
        let of = |s: &Setting| {
            let (device, field) = (s.knob.device.clone(), s.knob.field.clone());
            (device.unwrap(), field.unwrap(), s.before.clone(), s.after.clone())
        };
        let all: Vec<_> = set.all.iter().map(of).collect();
        let four = |d: &str, f: &str, b: &str, a: &str| (d.into(), f.into(), b.into(), a.into());
        assert_eq!(
            all,
            [
                four("8:0", "rbps", "max", "1000"),
                four("8:0", "wbps", "9", "5"),
                four("8:16", "rbps", "max", "2000"),
                four("8:16", "wbps", "max", "5"),
            ]
        );
        let v1 = directory(&[("blkio.throttle.read_bps_device", "")]);
        let mut set = Settings::default();
        let refused = set.io(Version::V1, v1.path(), &[every], sys.path()).unwrap_err();
        assert!(refused.to_string().starts_with("io.writeBps: "), "{refused}");
        let read = IoLimit { read_bps: Some(1000), ..IoLimit::default() };
        let mut set = Settings::default();
        set.io(Version::V1, v1.path(), &[read], sys.path()).unwrap();
        assert_eq!((set.all[0].before.as_str(), set.all[0].after.as_str()), ("0", "1000"));
    }

    #[test]
    fn v2_freezes_and_where_it_cannot_v1_does() {
        let v1 = directory(&[("freezer.state", "THAWED\n"), ("freezer.self_freezing", "0\n")]);
        let freeze = |v2: &tempfile::TempDir, is_v1_alone| {
            let both = Directories::fake(v2.path(), ("freezer", v1.path()), is_v1_alone);
            let mut set = Settings::default();
            set.freeze(&both).unwrap();
            set
        };
        let v2 = directory(&[("cgroup.freeze", "0\n")]);
        assert_eq!(written(&freeze(&v2, false)), [("cgroup.freeze", "0", "1")]);
        for is_v1_alone in [true, false] {
            let set = freeze(&directory(&[]), is_v1_alone);
            assert_eq!(written(&set), [("freezer.state", "THAWED", "FROZEN")]);
            assert!(set.all[0].knob.directory == v1.path() && set.notes.is_empty());
        }
        fs::write(v1.path().join("freezer.self_freezing"), "1\n").unwrap();
        let set = freeze(&directory(&[]), true);
        assert_eq!(set.all[0].before, "FROZEN");
        assert!(set.notes[0].contains("frozen by somebody else already"), "{:?}", set.notes);
    }

    #[test]
    fn a_file_that_is_missing_is_said_by_name() {
        let cgroup = directory(&[]);
        let other = Directories::fake(cgroup.path(), ("pids", cgroup.path()), false);
        let refused = Settings::default().freeze(&other).unwrap_err();
        assert!(refused.to_string().contains("cgroup.freeze"), "{refused}");
        let root = Directories::fake(cgroup.path(), ("freezer", cgroup.path()), true);
        let refused = Settings::default().freeze(&root).unwrap_err().to_string();
        assert!(refused.contains("freezer.state") && refused.contains("of its own"), "{refused}");
        let refused = Settings::default().pids_max(cgroup.path(), MOST_PIDS + 1).unwrap_err();
        assert!(refused.to_string().contains("4194304"), "{refused}");
    }
}
