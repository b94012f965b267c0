//! How much memory is meant, and what happens when it runs out.

use std::fs;
use std::path::{Path, PathBuf};

use crate::engine::error::EngineError;
use crate::engine::strain::place::{Directories, Version};
use crate::plan::strain::Amount;

/// What v1 writes where there is no limit: the largest number of whole pages (PAGE_COUNTER_MAX).
/// Everything from here on is none.
const NO_LIMIT_V1: u64 = 0x7fff_ffff_ffff_0000;

/// An amount as bytes, for the cgroup with these directories.
///
/// # Errors
/// [`EngineError::Unsupported`] for a share of a limit that is not there.
pub fn bytes(amount: Amount, directories: &Directories) -> Result<u64, EngineError> {
    let share = |percent: f64, of: u64| (of as f64 * percent / 100.0).round() as u64;
    match amount {
        Amount::Bytes(bytes) => Ok(bytes),
        Amount::PercentOfNode(percent) => Ok(share(percent, node_bytes()?)),
        Amount::PercentOfLimit(percent) => {
            let (limit, _) = memory_limit(directories).ok_or_else(|| EngineError::Unsupported {
                mechanism: "memory of a limit",
                reason: format!(
                    "neither {} nor a cgroup above it has a memory limit, of which {percent} % \
                     could be taken",
                    directories.main().display()
                ),
                way_out: "give the size in bytes or as a share of the node's memory, or set a \
                          limit",
            })?;
            Ok(share(percent, limit))
        }
    }
}

/// The lowest memory limit of the cgroup and those above it, bytes, and the directory that has
/// it. v2: `memory.max`, v1: `memory.limit_in_bytes`.
#[must_use]
pub fn memory_limit(directories: &Directories) -> Option<(u64, PathBuf)> {
    let (version, directory) = directories.controller("memory")?;
    let name = match version {
        Version::V1 => "memory.limit_in_bytes",
        Version::V2 => "memory.max",
    };
    lowest(directory, name)
}

/// The lowest number in files of this name, from a directory upwards as long as there are such.
fn lowest(directory: &Path, name: &str) -> Option<(u64, PathBuf)> {
    let limit = |directory: &Path| {
        let text = fs::read_to_string(directory.join(name)).ok()?;
        // "max" is no number.
        Some((text.trim().parse().unwrap_or(u64::MAX), directory.to_owned()))
    };
    directory
        .ancestors()
        .map_while(limit)
        .filter(|(limit, _)| *limit < NO_LIMIT_V1)
        .min_by_key(|(limit, _)| *limit)
}

/// The cgroup whose processes all die when one of them is killed for want of memory
/// (`memory.oom.group`, v2). `None`: only one process dies, the kernel's choice.
///
/// The kernel takes the highest one that says so, up to the cgroup whose limit was reached
/// (`mem_cgroup_get_oom_group` in `mm/memcontrol.c`): here the one with the lowest limit.
#[must_use]
pub fn killed_together(directories: &Directories) -> Option<PathBuf> {
    let (Version::V2, directory) = directories.controller("memory")? else { return None };
    let limited = memory_limit(directories).map(|(_, directory)| directory);
    highest_together(directory, limited.as_deref())
}

fn highest_together(directory: &Path, limited: Option<&Path>) -> Option<PathBuf> {
    let reached = limited.unwrap_or(Path::new("/"));
    let text = |directory: &Path| fs::read_to_string(directory.join("memory.oom.group")).ok();
    directory
        .ancestors()
        .take_while(|directory| directory.starts_with(reached))
        .map_while(|directory| Some((text(directory)?, directory)))
        .filter(|(text, _)| text.trim() == "1")
        .map(|(_, directory)| directory.to_owned())
        .last()
}

/// Memory of this host (`MemTotal`), bytes.
fn node_bytes() -> Result<u64, EngineError> {
    const FILE: &str = "/proc/meminfo";
    let text =
        fs::read_to_string(FILE).map_err(|error| EngineError::os(format!("read {FILE}"), error))?;
    mem_total(&text).ok_or_else(|| {
        let error = std::io::Error::new(std::io::ErrorKind::InvalidData, "no MemTotal");
        EngineError::os(format!("read {FILE}"), error)
    })
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Each worker's share of an amount; the last one takes the remainder.
pub fn shares(bytes: u64, workers: u32) -> impl Iterator<Item = u64> {
    let count = u64::from(workers);
    let each = bytes.checked_div(count).unwrap_or(0);
    (1..=count).map(move |n| if n == count { bytes - each * (count - 1) } else { each })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_to_the_whole() {
        for (bytes, workers) in [(10, 3), (7, 7), (0, 2), (u64::MAX, 5), (256 << 20, 1)] {
            let all: Vec<u64> = shares(bytes, workers).collect();
            assert_eq!(all.len(), workers as usize);
            assert_eq!(all.iter().sum::<u64>(), bytes, "{all:?}");
        }
        assert_eq!(shares(10, 3).collect::<Vec<_>>(), [3, 3, 4]);
        assert_eq!(shares(10, 0).count(), 0);
    }

    #[test]
    fn the_lowest_limit_counts() {
        let root = tempfile::tempdir().unwrap();
        let (middle, leaf) = (root.path().join("a"), root.path().join("a/b"));
        fs::create_dir_all(&leaf).unwrap();
        let set = |directory: &Path, text: &str| {
            fs::write(directory.join("memory.max"), text).unwrap();
        };
        assert_eq!(lowest(&leaf, "memory.max"), None);
        set(&leaf, "max\n");
        set(&middle, "max\n");
        assert_eq!(lowest(&leaf, "memory.max"), None, "none has one");
        set(&middle, "4096\n");
        assert_eq!(lowest(&leaf, "memory.max"), Some((4096, middle.clone())));
        set(&leaf, "8192\n");
        assert_eq!(lowest(&leaf, "memory.max"), Some((4096, middle)));
        set(&leaf, "1024\n");
        assert_eq!(lowest(&leaf, "memory.max"), Some((1024, leaf)));
    }

    #[test]
    fn the_group_that_dies_together_is_below_the_limit_that_is_reached() {
        let root = tempfile::tempdir().unwrap();
        let (middle, leaf) = (root.path().join("a"), root.path().join("a/b"));
        fs::create_dir_all(&leaf).unwrap();
        let set = |directory: &Path, text: &str| {
            fs::write(directory.join("memory.oom.group"), text).unwrap();
        };
        set(&leaf, "0\n");
        set(&middle, "1\n");
        assert_eq!(highest_together(&leaf, None), Some(middle.clone()));
        assert_eq!(highest_together(&leaf, Some(&leaf)), None, "only its own limit is reached");
        set(&leaf, "1\n");
        assert_eq!(highest_together(&leaf, Some(&leaf)), Some(leaf.clone()));
        assert_eq!(highest_together(&leaf, Some(&middle)), Some(middle));
    }

    #[test]
    fn what_v1_says_of_no_limit_is_none() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("m"), "9223372036854771712\n").unwrap();
        assert_eq!(lowest(root.path(), "m"), None);
    }

    #[test]
    fn the_nodes_memory_is_read() {
        assert_eq!(
            mem_total("MemTotal:       24683776 kB\nMemFree: 1 kB\n"),
            Some(24_683_776 << 10)
        );
        assert_eq!(mem_total("MemFree: 1 kB\n"), None);
    }
}
